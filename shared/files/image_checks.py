"""What a file of an image may ask of its decoder, looked up in its bytes before the decoder sees
them.

Limits on what a header says are no limits on what decoding takes: a few bytes can ask for a tile
of a gigabyte, for ten thousand passes over a large image, or for a million pieces that are put
together one by one."""

import re
import struct
from collections.abc import Callable

MAX_SCANS = 100
"""Of a JPEG: encoders write about ten, and each costs a pass over the whole image."""
MAX_SEGMENTS = 2_000
"""Of a JPEG, before its first scan: a colour profile takes 255 at most."""
MAX_EXIF_SEGMENTS = 16
MAX_JUNK_BYTES = 65_536
"""Between two segments."""
MAX_CHUNKS = 65_536
"""Of a PNG or WebP."""
MAX_PROFILE_BYTES = 8 * 1024 * 1024
"""Of metadata of one image, together."""
MAX_FRAMES_PIXELS = 100
"""Pixels of all frames of an animation, over what one image may have. Only the first frame is
ever decoded.
"""
MAX_TILE_PIXELS = 1 << 20
"""Of a TIFF's tile that is larger than its image: writers pad small images to tiles of up to
1024 x 1024.
"""
MAX_TAGS = 1_000

_MARKER = re.compile(rb"\xff([^\x00\xff])", re.DOTALL)
_AFTER_SCAN = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])", re.DOTALL)
_SOS, _EOI, _APP1 = 0xDA, 0xD9, 0xE1
_BARE = frozenset({0x01, *range(0xD0, 0xD9)})
"""Markers without a length."""

_GIF_EXTENSION, _GIF_IMAGE, _GIF_END = 0x21, 0x2C, 0x3B
_TILE_WIDTH, _TILE_LENGTH, _WIDTH, _LENGTH = 322, 323, 256, 257
ORIENTATION = 0x0112


def wrong_demand(image_format: str, content: bytes, max_pixels: int) -> str | None:
    """Return what is wrong with what an image asks of its decoder; None if nothing is.

    Args:
        image_format: Pillow's name of it.
        content: the whole file.
        max_pixels: what one image may have.
    """
    check = _CHECKS.get(image_format)
    try:
        return check(content, max_pixels) if check else None
    except (struct.error, IndexError):
        return None  # it is cut off: the decoder says so better


def orientation(exif: bytes | None) -> int:
    """Return how EXIF data says that an image is to be turned, 1 to 8; 1 where it says nothing
    that makes sense.
    """
    data = (exif or b"").removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        return 1
    try:
        (at,) = struct.unpack_from(f"{order}L", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, at)
        for number in range(min(count, MAX_TAGS)):
            tag, kind, _, value = struct.unpack_from(f"{order}2HLH", data, at + 2 + 12 * number)
            if tag == ORIENTATION and kind == 3:
                return value if value in range(1, 9) else 1
    except struct.error:
        pass
    return 1


def _jpeg(content: bytes, _: int) -> str | None:
    at, scans, segments, exif = 2, 0, 0, 0
    while True:
        found = (_AFTER_SCAN if scans else _MARKER).search(content, at)
        junk = (found.start() if found else len(content)) - at
        if not scans and junk > MAX_JUNK_BYTES:
            return f"has {junk} bytes between its parts that mean nothing"
        if found is None or (marker := found[1][0]) == _EOI:
            return None
        at = found.end()
        if marker in _BARE:
            continue
        (length,) = struct.unpack_from(">H", content, at)
        scans += marker == _SOS
        segments += 1
        exif += marker == _APP1 and content.startswith(b"Exif", at + 2)
        if scans > MAX_SCANS:
            return f"is a JPEG of more than {MAX_SCANS} scans; save it again"
        if segments > MAX_SEGMENTS or exif > MAX_EXIF_SEGMENTS:
            return "is a JPEG of thousands of parts; save it again"
        at += max(2, length)


def _png(content: bytes, max_pixels: int) -> str | None:
    at, chunks, meta, frames = 8, 0, 0, 0
    width, height = struct.unpack_from(">2L", content, 16)
    while at + 8 <= len(content):
        length, kind = struct.unpack_from(">L4s", content, at)
        chunks += 1
        meta += length if kind[:1].islower() and kind != b"fdAT" else 0
        if chunks > MAX_CHUNKS or meta > MAX_PROFILE_BYTES:
            return _too_many_parts("PNG")
        if kind == b"acTL":
            (frames,) = struct.unpack_from(">L", content, at + 8)
        at += 12 + length
    return _frames(frames, width * height, max_pixels)


def _webp(content: bytes, max_pixels: int) -> str | None:
    at, chunks, meta, frames, pixels = 12, 0, 0, 0, 0
    while at + 8 <= len(content):
        kind, length = struct.unpack_from("<4sL", content, at)
        if kind == b"VP8X":
            width = int.from_bytes(content[at + 12 : at + 15], "little") + 1
            pixels = width * (int.from_bytes(content[at + 15 : at + 18], "little") + 1)
            if pixels > max_pixels:
                return f"has {pixels} pixels; the limit is {max_pixels}"
        chunks += 1
        frames += kind == b"ANMF"
        meta += length if kind in (b"ICCP", b"EXIF", b"XMP ") else 0
        if chunks > MAX_CHUNKS or meta > MAX_PROFILE_BYTES:
            return _too_many_parts("WebP")
        at += 8 + length + length % 2
    return _frames(frames, pixels, max_pixels)


def _gif(content: bytes, _: int) -> str | None:
    """Look at what comes before the first frame: nothing behind it is read."""
    at, steps = 13 + ((6 << (content[10] & 7)) if content[10] & 128 else 0), 0
    while content[at] not in (_GIF_IMAGE, _GIF_END):
        if content[at] == _GIF_EXTENSION:
            at += 2
            while size := content[at]:
                at, steps = at + 1 + size, steps + 1
                if steps > MAX_CHUNKS:
                    return _too_many_parts("GIF")
        at, steps = at + 1, steps + 1
        if steps > MAX_CHUNKS:
            return _too_many_parts("GIF")
    return None


def _tiff(content: bytes, max_pixels: int) -> str | None:
    order = "<" if content[:2] == b"II" else ">"
    if content[2:4] in (b"+\0", b"\0+"):
        (at,) = struct.unpack_from(f"{order}Q", content, 8)
        (count,) = struct.unpack_from(f"{order}Q", content, at)
        entry, first, tag_format = 20, at + 8, f"{order}2HQ"
    else:
        (at,) = struct.unpack_from(f"{order}L", content, 4)
        (count,) = struct.unpack_from(f"{order}H", content, at)
        entry, first, tag_format = 12, at + 2, f"{order}2HL"
    if count > MAX_TAGS:
        return "is a TIFF of thousands of tags; save it again"
    sizes: dict[int, int] = {}
    for number in range(count):
        here = first + entry * number
        tag, kind, values = struct.unpack_from(tag_format, content, here)
        letter = {1: "B", 3: "H", 4: "L", 16: "Q"}.get(kind)
        if tag in (_TILE_WIDTH, _TILE_LENGTH, _WIDTH, _LENGTH) and letter and values == 1:
            (sizes[tag],) = struct.unpack_from(
                f"{order}{letter}", content, here + struct.calcsize(tag_format)
            )
    pixels = sizes.get(_WIDTH, 0) * sizes.get(_LENGTH, 0)
    tile = sizes.get(_TILE_WIDTH, 0) * sizes.get(_TILE_LENGTH, 0)
    if tile > max(4 * pixels, MAX_TILE_PIXELS) or tile > max(max_pixels, MAX_TILE_PIXELS):
        width, length = sizes[_TILE_WIDTH], sizes[_TILE_LENGTH]
        return (
            f"is a TIFF with tiles of {width} x {length} pixels, far more than it has; save it "
            "again"
        )
    return None


def _frames(frames: int, pixels: int, max_pixels: int) -> str | None:
    if frames * pixels > MAX_FRAMES_PIXELS * max_pixels:
        return (
            f"is an animation of {frames} frames of {pixels} pixels; give the frame that is meant"
        )
    return None


def _too_many_parts(name: str) -> str:
    return (
        f"is a {name} of too many parts, or with too much beside the image; save it again "
        "without metadata"
    )


_CHECKS: dict[str, Callable[[bytes, int], str | None]] = {
    "JPEG": _jpeg,
    "PNG": _png,
    "WEBP": _webp,
    "GIF": _gif,
    "TIFF": _tiff,
}
