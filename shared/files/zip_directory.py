"""The directory of a zip: how many entries it lists, before a reader makes an object of each, and
what they are called.

A zip says of a name either that it is UTF-8, or nothing: the code page was that of the machine.
Archive Utility of macOS and old Info-ZIP write UTF-8 and say nothing, so bytes that are UTF-8
are read so (other text hardly ever is by chance), and the rest as CP437, which the format names.
.NET and old packers of Windows separate folders by backslashes."""

import struct
import zipfile
import zlib
from typing import IO

END = b"PK\x05\x06"
END_BYTES = 22
MAX_COMMENT_BYTES = 65_535
END_64, LOCATOR_64 = b"PK\x06\x06", b"PK\x06\x07"
LOCATOR_BYTES, END_64_BYTES = 20, 56
ENTRY, ENTRY_BYTES = b"PK\x01\x02", 46

UTF8_FLAG = 0x800
UNICODE_PATH = 0x7075
"""Info-ZIP's extra field: the name in UTF-8, with the checksum of the name that it stands for."""
BACKSLASH_SYSTEMS = frozenset({0, 10, 14})
"""MS-DOS, NTFS and VFAT: no name holds a backslash there, so that one separates folders."""


def count_entries(file: IO[bytes], most: int) -> tuple[int, int]:
    """Return how many entries the directory has, and how many of them are folders; it stops at
    `most` + 1 entries.

    No number in it is believed.

    Raises:
        BadZipFile: there is no directory, or it is damaged.
    """
    start, size = _directory(file)
    file.seek(start)
    count = folders = 0
    while size > 0 and count <= most:
        head = file.read(ENTRY_BYTES)
        if len(head) < ENTRY_BYTES or not head.startswith(ENTRY):
            raise zipfile.BadZipFile("Bad magic number for central directory")
        name, *others = struct.unpack_from("<3H", head, 28)
        folders += file.read(name)[-1:] in (b"/", b"\\")
        file.seek(sum(others), 1)
        size -= ENTRY_BYTES + name + sum(others)
        count += 1
    return count, folders


def _directory(file: IO[bytes]) -> tuple[int, int]:
    """Return where the directory begins and how many bytes it has: it ends where its end record
    begins.
    """
    length = file.seek(0, 2)
    tail_at = max(0, length - END_BYTES - MAX_COMMENT_BYTES)
    file.seek(tail_at)
    tail = file.read()
    exact = len(tail) - END_BYTES  # where there is no comment, as zipfile looks first
    at = (
        exact
        if exact >= 0 and tail[exact : exact + 4] == END and tail[-2:] == b"\0\0"
        else tail.rfind(END)
    )
    if at < 0 or len(tail) - at < END_BYTES:
        raise zipfile.BadZipFile("File is not a zip file")
    size, end = struct.unpack_from("<L", tail, at + 12)[0], tail_at + at
    locator = end - LOCATOR_BYTES
    if locator >= END_64_BYTES:
        file.seek(locator - END_64_BYTES)
        before = file.read(END_64_BYTES + LOCATOR_BYTES)
        if before[END_64_BYTES:].startswith(LOCATOR_64) and before.startswith(END_64):
            size, end = struct.unpack_from("<Q", before, 40)[0], locator - END_64_BYTES
    if size > end:
        raise zipfile.BadZipFile("Bad offset for central directory")
    return end - size, size


def entry_name(info: zipfile.ZipInfo) -> tuple[str, bool]:
    """Return the name of a member, with / between folders; and whether its encoding had to be
    guessed.
    """
    raw, guessed = info.orig_filename, False  # `filename` ends at the first NUL
    if not info.flag_bits & UTF8_FLAG and not raw.isascii():
        stored = raw.encode("cp437")
        told = _unicode_path(info.extra, stored)
        try:
            raw = told if told is not None else stored.decode()
        except UnicodeDecodeError:
            guessed = True
    if info.create_system in BACKSLASH_SYSTEMS:
        raw = raw.replace("\\", "/")
    return raw, guessed


def _unicode_path(extra: bytes, stored: bytes) -> str | None:
    at = 0
    while at + 4 <= len(extra):
        kind, size = struct.unpack_from("<2H", extra, at)
        data = extra[at + 4 : at + 4 + size]
        if kind == UNICODE_PATH and len(data) > 5 and data[0] == 1:
            if struct.unpack_from("<L", data, 1)[0] != zlib.crc32(stored):
                return None  # of a name that was changed since
            return data[5:].decode()
        at += 4 + size
    return None
