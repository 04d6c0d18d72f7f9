"""Images that ask more of a decoder than their size lets expect, or that are none; and sets that cannot be understood."""

import io
import json
import struct
import zlib

from PIL import Image

from tests.support.hostile.archives import PNG

SMALL = 16


def encoded(kind: str, image: Image.Image | None = None, **options: object) -> bytes:
    """Return an image in a format."""
    out = io.BytesIO()
    (image or Image.new("RGB", (SMALL, SMALL), "red")).save(out, kind, **options)
    return out.getvalue()


def tiff(*tags: tuple[int, int, int], data: bytes = b"") -> bytes:
    """Return a little-endian TIFF of (tag, type, value) entries, with bytes behind its directory."""
    entries = b"".join(struct.pack("<2HLL", tag, kind, 1, value) for tag, kind, value in sorted(tags))
    return b"II*\0" + struct.pack("<LH", 8, len(tags)) + entries + bytes(4) + data


GREY = ((258, 3, 8), (259, 3, 1), (262, 3, 1), (277, 3, 1))


def tile_bomb() -> bytes:
    """Return an image of 64 x 64 pixels in one tile of a gigabyte, which takes 150 bytes."""
    size = ((256, 4, 64), (257, 4, 64), (322, 4, 32768), (323, 4, 32768), (324, 4, 150), (325, 4, 16))
    return tiff(*GREY, *size, data=bytes(30))


def many_tags() -> bytes:
    """Return a TIFF of five thousand tags."""
    return tiff((256, 4, 8), (257, 4, 8), *GREY, *((40_000 + number, 4, 0) for number in range(5000)))


def scans(count: int, size: tuple[int, int] = (SMALL, SMALL)) -> bytes:
    """Return a progressive JPEG whose last scan comes over and over."""
    content = encoded("JPEG", Image.new("RGB", size), progressive=True)
    last = content.rindex(b"\xff\xda")
    return content[:-2] + content[last:-2] * count + content[-2:]


def segments(count: int, marker: int = 0xE5, content: bytes = b"") -> bytes:
    """Return a JPEG with many segments before its first scan."""
    jpeg = encoded("JPEG")
    one = struct.pack(">2BH", 0xFF, marker, 2 + len(content)) + content
    return jpeg[:2] + one * count + jpeg[2:]


def junk_in_jpeg(count: int = 200_000) -> bytes:
    """Return a JPEG with bytes between its segments, which Pillow goes through one by one."""
    jpeg = encoded("JPEG")
    at = jpeg.index(b"\xff\xdb")
    return jpeg[:at] + bytes(count) + jpeg[at:]


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return a chunk of a PNG."""
    return struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data))


def png_with(*chunks: bytes) -> bytes:
    """Return a PNG with chunks behind its header."""
    return PNG[:33] + b"".join(chunks) + PNG[33:]


def text_bomb() -> bytes:
    """Return a PNG with a text of 200 MB in 200 kB."""
    return png_with(chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(200_000_000), 9)))


def frames() -> bytes:
    """Return an animated PNG of more frames than anybody looks at."""
    return png_with(chunk(b"acTL", struct.pack(">2L", 2**31 - 1, 0)))


def gif_comment(count: int = 100_000) -> bytes:
    """Return a GIF with a comment of many pieces."""
    gif = encoded("GIF")
    at = gif.index(b",")
    return gif[:at] + b"!\xfe" + b"\x01x" * count + b"\0" + gif[at:]


def webp_canvas() -> bytes:
    """Return a WebP that claims the largest canvas there is, and holds a small image."""
    small = encoded("WEBP")[12:]
    head = b"VP8X" + struct.pack("<L", 10) + b"\x02\0\0\0" + (16382).to_bytes(3, "little") * 2
    body = b"WEBP" + head + b"ANIM" + struct.pack("<L", 6) + bytes(6) + small
    return b"RIFF" + struct.pack("<L", len(body)) + body


def html() -> bytes:
    """Return what a server sends in place of an image that is gone."""
    return b"<!DOCTYPE html>\n<html><body>404 Not Found</body></html>"


def parquet_of_nothing() -> bytes:
    """Return a file that begins and ends as Parquet files do."""
    return b"PAR1" + bytes(64) + struct.pack("<L", 40) + b"PAR1"


def label(value: object) -> bytes:
    """Return a label in JSON."""
    return json.dumps({"label": value}).encode()
