"""The one way from the bytes of an image to pixels, for checking, for learning and for measuring.

What comes out is RGB in 8 bits, upright as viewers show it (EXIF's orientation applied), its
first frame alone, on white where it is transparent. Images of more than 8 bits are scaled by the
range of their format: 16 bits (or the 10 to 14 that a TIFF says) from black to white; whole
numbers of 32 bits and floats by the range that they fit in, which is [0, 1] for floats, then [0,
255], then [0, 65535], and else from their darkest to their brightest pixel."""

import io
import warnings
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from shared.files.archive_members import MAX_READ_BYTES
from shared.files.errors import invalid, shown, words
from shared.files.image_checks import orientation, wrong_demand
from shared.files.image_kinds import HEAD_BYTES, image_format, what_it_is

READING = 2
"""Grows when the same bytes become other pixels: what was computed of the pixels before is not
used then.
"""
MAX_SIDES = 100
"""The longer side of an image over the shorter: models scale the shorter one, and a thread would
become a plane.
"""
BITS_PER_SAMPLE, SAMPLE_FORMAT, UNSIGNED = 258, 339, 1
"""Tags of a TIFF, and a value of the second."""
FLOAT_TOPS = (1.0, 255.0, 65535.0)
ROWS_AT_A_TIME = 64
WHITE = (255, 255, 255)

_Values = np.ndarray[Any, Any]

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes an image upright, by EXIF's orientation."""
_TURNED_BY_THE_PLUGIN = frozenset({"TIFF", "HEIF"})


def decoded(file: BinaryIO | Path, member: str, max_pixels: int) -> Image.Image:
    """Return an image in RGB, as the module says.

    Raises:
        InvalidRequest: it cannot be decoded, has more than `max_pixels` pixels, is much longer than
            wide, or asks for far more than an image of its size takes.
    """
    content = file.read_bytes() if isinstance(file, Path) else file.read(MAX_READ_BYTES + 1)
    if len(content) > MAX_READ_BYTES:
        raise invalid(f"member {shown(member)} has more than {MAX_READ_BYTES} bytes")
    kind = image_format(content[:HEAD_BYTES])
    wrong = what_it_is(content) if kind is None else wrong_demand(kind, content, max_pixels)
    if wrong is not None or kind is None:
        raise invalid(f"member {shown(member)} {wrong}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow's, on metadata that is of no use here
            return _opened(content, kind, member, max_pixels)
    except _Refused as error:
        raise invalid(str(error)) from error
    except Exception as error:  # Pillow's plugins raise whatever broken input leads them to
        detail = (
            f"member {shown(member)} is not an image that can be decoded: {_reason(kind, error)}"
        )
        raise invalid(detail) from error


class _Refused(Exception):
    """An image is sound, but not taken."""


def _opened(content: bytes, kind: str, member: str, max_pixels: int) -> Image.Image:
    if kind == "HEIF":
        _register_heif()
    with Image.open(io.BytesIO(content), formats=(kind,)) as image:
        width, height = image.size
        if (wrong := _wrong_size(width, height, max_pixels)) is not None:
            raise _Refused(f"member {shown(member)} has {width} x {height} pixels; {wrong}")
        bits = _bits(image, kind)
        image.load()
        turn = (
            None
            if kind in _TURNED_BY_THE_PLUGIN
            else _TURNS.get(orientation(image.info.get("exif")))
        )
        upright = image if turn is None else image.transpose(turn)
        return rgb(upright, bits)


def _register_heif() -> None:
    try:
        import pillow_heif
    except ImportError as error:
        raise _Refused(
            "HEIC images need the package pillow-heif on the server; convert them to JPEG"
        ) from error
    pillow_heif.register_heif_opener(thumbnails=False)


def _reason(kind: str, error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return f"it begins as {kind} does, and goes on otherwise"
    return words(error)


def _wrong_size(width: int, height: int, max_pixels: int) -> str | None:
    if width * height > max_pixels:
        return f"the limit is {max_pixels}"
    if max(width, height) > MAX_SIDES * min(width, height):
        return f"one side may be {MAX_SIDES} times the other"
    return None


def _bits(image: Image.Image, kind: str) -> int | None:
    """Return how many bits a whole number of a deep greyscale image uses; None where that says
    nothing of its range.
    """
    if kind != "TIFF":
        return 16
    tags: Any = getattr(image, "tag_v2", {})
    bits, sign = tags.get(BITS_PER_SAMPLE, (16,)), tags.get(SAMPLE_FORMAT, (UNSIGNED,))
    return int(bits[0]) if bits[0] <= 16 and sign[0] == UNSIGNED else None


def rgb(image: Image.Image, bits: int | None = 16) -> Image.Image:
    """Return a loaded image in RGB of 8 bits; `bits` are those of a greyscale value of more than 8,
    None if unknown.

    Raises:
        ValueError: a value of it is no number.
    """
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_eight_bits(np.asarray(image), bits)).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        if layer.getchannel("A").getextrema() != (255, 255):
            ground = Image.new("RGBA", layer.size, (*WHITE, 255))
            ground.alpha_composite(layer)
            return ground.convert("RGB")
    return image.convert("RGB")


def _eight_bits(values: _Values, bits: int | None) -> _Values:
    low, high = _range(values, bits)
    scaled = np.empty(values.shape, np.uint8)
    for row in range(0, len(values), ROWS_AT_A_TIME):
        part = values[row : row + ROWS_AT_A_TIME].astype(np.float64)
        scaled[row : row + ROWS_AT_A_TIME] = np.clip(
            np.rint((part - low) * (255.0 / ((high - low) or 1.0))), 0, 255
        )
    return scaled


def _range(values: _Values, bits: int | None) -> tuple[float, float]:
    """Return the values of black and of white."""
    if values.dtype.kind != "f" and bits is not None:
        return 0.0, float((1 << bits) - 1)
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise ValueError("it holds values that are no numbers")
    tops = FLOAT_TOPS if values.dtype.kind == "f" else FLOAT_TOPS[1:]
    top = next((top for top in tops if low >= 0 and high <= top), None)
    return (low, high) if top is None else (0.0, top)
