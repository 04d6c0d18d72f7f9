"""What a file is by its first bytes, whatever it is called: an image that is taken, or something
that has a name.

Suffixes only say which members are meant as images. Each image is opened by the one plugin that
its bytes ask for."""

import re
from pathlib import PurePosixPath

IMAGE_SUFFIXES = frozenset(
    {
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jif",
        ".jfif",
        ".png",
        ".apng",
        ".webp",
        ".bmp",
        ".dib",
        ".gif",
        ".tif",
        ".tiff",
    }
    | {".avif", ".heic", ".heif", ".ppm", ".pgm", ".pbm", ".pnm"}
)
TAKEN = "JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF, HEIC and PPM"
"""For messages."""
SUFFIXES_OF_OTHERS = frozenset(
    {
        ".jxl",
        ".jp2",
        ".j2k",
        ".svg",
        ".psd",
        ".ico",
        ".eps",
        ".pdf",
        ".dng",
        ".cr2",
        ".cr3",
        ".nef",
        ".arw",
        ".orf",
    }
    | {
        ".raf",
        ".rw2",
        ".xcf",
        ".tga",
        ".exr",
        ".hdr",
        ".dcm",
        ".nii",
        ".webm",
        ".mp4",
        ".mov",
        ".avi",
        ".mkv",
    }
)
"""Of pictures and films that are not taken: to be converted first."""

HEAD_BYTES = 512

_FORMATS: tuple[tuple[str, re.Pattern[bytes]], ...] = tuple(
    (name, re.compile(pattern, re.DOTALL))
    for name, pattern in (
        ("JPEG", rb"\xff\xd8\xff"),
        ("PNG", rb"\x89PNG\r\n\x1a\n"),
        ("WEBP", rb"RIFF....WEBP"),
        ("GIF", rb"GIF8[79]a"),
        ("BMP", rb"BM.{12}"),
        ("TIFF", rb"II[*+]\0|MM\0[*+]"),
        ("AVIF", rb"....ftyp(avif|avis)|....ftyp(mif1|miaf).{4,40}avi[fs]"),
        ("HEIF", rb"....ftyp(heic|heix|heim|heis|hevc|hevx|hevm|hevs|mif1|msf1)"),
        ("PPM", rb"P[456]\s"),
    )
)
"""Pillow's name of a format, and how its files begin."""

_OTHERS: tuple[tuple[str, re.Pattern[bytes]], ...] = tuple(
    (name, re.compile(pattern, re.DOTALL | re.IGNORECASE))
    for name, pattern in (
        ("JPEG XL", rb"\xff\x0a|\0\0\0\x0cJXL "),
        ("JPEG 2000", rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51"),
        ("a plain-text PPM", rb"P[123]\s"),
        ("a Photoshop file", rb"8BPS"),
        ("a PDF", rb"%PDF-"),
        ("PostScript", rb"%!PS"),
        ("SVG", rb"(\xef\xbb\xbf)?\s*(<\?xml.*)?(<!--.*)?<svg[\s>]"),
        ("HTML", rb"(\xef\xbb\xbf)?\s*(<!--.*-->\s*)?<(!doctype\s+html|html|head|body)"),
        ("XML", rb"(\xef\xbb\xbf)?\s*<\?xml"),
        ("a film", rb"....ftyp|\x1aE\xdf\xa3|RIFF....AVI "),
        ("a sound", rb"ID3|RIFF....WAVE|OggS|fLaC"),
        ("an archive", rb"PK\x03\x04|Rar!|7z\xbc\xaf|\x1f\x8b|BZh|\xfd7zXZ"),
        ("a NumPy array", rb"\x93NUMPY"),
        ("a Parquet file", rb"PAR1"),
        ("a Git LFS pointer: fetch the file itself with git lfs pull", rb"version https://git-lfs"),
        ("JSON", rb"(\xef\xbb\xbf)?\s*[{\[]\s*[\"{\[\]}\d]"),
    )
)


def is_image(name: PurePosixPath) -> bool:
    """True if the name is one of an image."""
    return name.suffix.lower() in IMAGE_SUFFIXES


def image_format(head: bytes) -> str | None:
    """Return the format of a file, by Pillow's name of it, from its first bytes; None if it is
    none that is taken.
    """
    return next((name for name, pattern in _FORMATS if pattern.match(head)), None)


def what_it_is(content: bytes) -> str:
    """Return what a file is that is no image that is taken, e.g. `is HTML, not an image`."""
    if not content:
        return "is empty"
    head = content[:HEAD_BYTES]
    name = next((name for name, pattern in _OTHERS if pattern.match(head)), None)
    if name is None and not head.strip(b"\0"):
        name = "zeros"
    if name is None and _is_text(head):
        name = "text"
    if name is not None:
        return f"is {name}, not an image that can be decoded; taken are {TAKEN}"
    return f"is not an image that can be decoded; taken are {TAKEN}"


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        text = head[: error.start].decode() if error.start > len(head) - 4 else ""
    return bool(text) and all(character.isprintable() or character.isspace() for character in text)
