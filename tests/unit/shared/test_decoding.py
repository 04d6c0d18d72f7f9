"""From the bytes of an image to pixels: upright, in 8 bits, on white, the first frame; and what is refused before decoding."""

import io
import warnings

import numpy as np
import pytest
from PIL import Image

from shared.errors import InvalidRequest
from shared.files.decoding import decoded
from shared.files.image_checks import orientation
from tests.support.hostile.images import encoded, scans

PIXELS = 1_000_000


def pixels(content: bytes) -> np.ndarray:
    image = decoded(io.BytesIO(content), "m", PIXELS)
    assert image.mode == "RGB"
    return np.asarray(image)


def refused(content: bytes) -> str:
    with pytest.raises(InvalidRequest) as caught:
        decoded(io.BytesIO(content), "m", PIXELS)
    return caught.value.errors[0].detail


def halves() -> Image.Image:
    """Blue on the left, red on the right."""
    image = Image.new("RGB", (40, 20), "red")
    image.paste("blue", (0, 0, 20, 20))
    return image


def exif(turn: int) -> Image.Exif:
    found = Image.Exif()
    found[0x0112] = turn
    return found


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
@pytest.mark.parametrize(("turn", "blue"), [(1, "left"), (3, "right"), (6, "top"), (8, "bottom")])
def test_images_are_upright(kind: str, turn: int, blue: str) -> None:
    found = pixels(encoded(kind, halves(), exif=exif(turn)))
    place = {"left": (10, 3), "right": (10, 36), "top": (3, 10), "bottom": (36, 10)}[blue]
    assert found.shape == ((20, 40, 3) if turn < 5 else (40, 20, 3))
    assert found[place].argmax() == 2
    opposite = tuple(size - 1 - at for size, at in zip(found.shape[:2], place, strict=True))
    assert found[opposite].argmax() == 0


@pytest.mark.parametrize("turn", range(1, 9))
def test_orientation_is_what_pillow_makes_of_it(turn: int) -> None:
    from PIL import ImageOps

    content = encoded("PNG", halves().resize((7, 5)), exif=exif(turn))
    with Image.open(io.BytesIO(content)) as image:
        assert (pixels(content) == np.asarray(ImageOps.exif_transpose(image).convert("RGB"))).all()


@pytest.mark.parametrize(
    "data", [None, b"", b"Exif\0\0", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x63"]
)
def test_exif_that_makes_no_sense_turns_nothing(data: bytes | None) -> None:
    assert orientation(data) == 1


RAMP = np.tile(np.linspace(0, 65535, 256).round().astype(np.uint16), (8, 1))
EVEN = np.arange(256)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled(kind: str) -> None:
    assert (pixels(encoded(kind, Image.fromarray(RAMP)))[0, :, 0] == EVEN).all()


@pytest.mark.parametrize(
    "values", [RAMP / 65535, RAMP / 257, RAMP.astype(float), RAMP / 65535 * 3 - 1, RAMP.astype(float) * 1000]
)
def test_floats_are_scaled_by_the_range_that_they_fit(values: np.ndarray) -> None:
    found = pixels(encoded("TIFF", Image.fromarray(values.astype(np.float32))))[0, :, 0]
    assert np.abs(found.astype(int) - EVEN).max() <= 1


def test_a_dark_image_of_sixteen_bits_stays_dark() -> None:
    assert pixels(encoded("PNG", Image.fromarray(RAMP // 8))).max() == 32


def test_whole_numbers_of_32_bits_are_scaled() -> None:
    found = pixels(encoded("TIFF", Image.fromarray(RAMP.astype(np.int32) * 1000 - 5)))[0, :, 0]
    assert np.abs(found.astype(int) - EVEN).max() <= 1


def clear(mode: str, colour: object) -> Image.Image:
    return Image.new(mode, (8, 8), colour)


@pytest.mark.parametrize(
    ("content", "colour"),
    [
        (encoded("PNG", clear("RGBA", (255, 0, 0, 0))), (255, 255, 255)),
        (encoded("PNG", clear("RGBA", (255, 0, 0, 255))), (255, 0, 0)),
        (encoded("PNG", clear("LA", (0, 128))), (127, 127, 127)),
        (encoded("PNG", clear("L", 7), transparency=7), (255, 255, 255)),
        (encoded("PNG", clear("P", 0), transparency=0), (255, 255, 255)),
        (encoded("GIF", clear("P", 0), transparency=0), (255, 255, 255)),
        (encoded("WEBP", clear("RGBA", (255, 0, 0, 0)), lossless=True, exact=True), (255, 255, 255)),
        (encoded("PNG", clear("1", 1)), (255, 255, 255)),
        (encoded("TIFF", clear("CMYK", (0, 255, 255, 0))), (255, 0, 0)),
        (encoded("JPEG", clear("CMYK", (0, 255, 255, 0))), (255, 0, 0)),
    ],
)
def test_every_mode_becomes_rgb(content: bytes, colour: tuple[int, int, int]) -> None:
    found = pixels(content)
    assert np.abs(found.astype(int) - colour).max() <= 1


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "AVIF", "TIFF"])
def test_the_first_frame_is_the_image(kind: str) -> None:
    frames = [clear("RGB", name) for name in ("red", "green", "blue")]
    content = encoded(kind, frames[0], save_all=True, append_images=frames[1:])
    assert pixels(content)[4, 4].argmax() == 0


def test_heic_is_read() -> None:
    import pillow_heif

    pillow_heif.register_heif_opener(thumbnails=False)
    found = pixels(encoded("HEIF", halves(), quality=95))
    assert found.shape == (20, 40, 3)
    assert (found[10, 3].argmax(), found[10, 36].argmax()) == (2, 0)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>404", "is HTML, not an image"),
        (b"\xef\xbb\xbf\n<html><body>", "is HTML, not an image"),
        (b'{"error": "not found"}', "is JSON, not an image"),
        (b"Not found", "is text, not an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is SVG, not an image"),
        (b"%PDF-1.7", "is a PDF, not an image"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"\xff\x0a" + bytes(20), "is JPEG XL, not an image"),
        (bytes(64), "is zeros, not an image"),
        (b"\xff\xd8\xff\xe0" + bytes(20), "begins as JPEG does, and goes on otherwise"),
        (b"\x80\x81\x82\x83", "taken are JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF, HEIC and PPM"),
    ],
)
def test_what_is_no_image_is_told_what_it_is(content: bytes, words: str) -> None:
    said = refused(content)
    assert words in said
    assert "0x" not in said


def test_a_hundred_scans_are_a_photograph() -> None:
    assert pixels(scans(80)).shape == (16, 16, 3)


def test_pillow_has_nothing_to_warn_of() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pixels(encoded("PNG", halves()))
