"""Members of an archive (zip, or tar plain or compressed), each one checked before a byte of it is unpacked.

Nothing in an archive is believed. A member may not leave the folder, be a link, a device or a sparse file, be
encrypted, take another one's place, lie deeper or unpack to more than the limits allow, or have another size than its
header says. An archive inside an archive is a file like any other: it is never opened.
"""

import bz2
import gzip
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Any
from unicodedata import normalize

from shared.layouts import invalid
from shared.settings import MIB

MAX_READ_BYTES = 128 * MIB
"""What is read at once: one image, a header, the directory of a zip."""
MAX_NAME_BYTES = 255
"""Of one part of a path: what file systems take."""
MAX_PATH_BYTES = 1024
MAX_DEPTH = 16
SHOWN_CHARACTERS = 100
SHOWN_WORDS = 400

ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""The others are unpacked by Python without a bound on what one piece becomes."""

_COMPRESSIONS: dict[bytes, Callable[[IO[bytes]], Any]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\0": lzma.LZMAFile,
}

_DAMAGE = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError),
    *(ValueError, LookupError, ArithmeticError, RuntimeError, MemoryError),
)
"""What the two readers of the standard library raise on headers that make no sense."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberLimits:
    """What an archive may hold: members (folders count), bytes when unpacked, unpacked over packed bytes."""

    members: int
    expanded_bytes: int
    ratio: int


@dataclass(frozen=True, slots=True)
class Member:
    """One file of an archive, to be read before the next one is asked for."""

    name: PurePosixPath
    size: int
    file: IO[bytes]

    def read(self) -> bytes:
        """Return the whole content.

        Raises:
            InvalidRequest: it is larger than `MAX_READ_BYTES`, or of another size than the header says.
        """
        if self.size > MAX_READ_BYTES:
            raise invalid(f"member {shown(self.name)} has {self.size} bytes; the limit for one is {MAX_READ_BYTES}")
        content = self._piece(self.size + 1)
        self._check_size(len(content))
        return content

    def copy(self, target: Path, chunk_bytes: int = 8 * MIB) -> None:
        """Write the content to `target`, piece by piece.

        Raises:
            InvalidRequest: it has another size than the header says.
        """
        written = 0
        with target.open("wb") as out:
            while written <= self.size and (chunk := self._piece(chunk_bytes)):
                out.write(chunk)
                written += len(chunk)
        self._check_size(written)

    def _piece(self, size: int) -> bytes:
        with explained(f"member {shown(self.name)}"):
            return self.file.read(size)

    def _check_size(self, found: int) -> None:
        if found != self.size:
            raise invalid(f"member {shown(self.name)} has another size than its header says; pack the archive again")


def members(path: Path, limits: MemberLimits) -> Iterator[Member]:
    """Yield every file of an archive, in its order.

    Raises:
        InvalidRequest: it is no archive, or breaks a rule; the detail names the member.
    """
    places = _Places()
    budget = min(limits.expanded_bytes, limits.ratio * path.stat().st_size)
    expanded = 0
    with explained(shown(path.name)):
        for count, (raw, size, file) in enumerate(_zip(path) if is_zip(path) else _tar(path), 1):
            name = _safe(raw, folder=file is None)
            expanded += size
            if size < 0 or expanded > budget:
                raise invalid(f"unpacks to more than {budget} bytes at member {shown(raw)}; split it into smaller ones")
            if count > limits.members:
                raise invalid(f"holds more than {limits.members} members; split it into smaller archives")
            if file is not None:
                places.take(name, raw)
                yield Member(name, size, file)


def is_zip(path: Path) -> bool:
    """True if the file is read as a zip: what ends like one is one, whatever it begins with."""
    return zipfile.is_zipfile(path)


def shown(name: object) -> str:
    """Return a name for an error: quoted, escaped and not too long."""
    text = str(name)
    return ascii(text) if len(text) <= SHOWN_CHARACTERS else ascii(text[:SHOWN_CHARACTERS]) + "..."


def is_archive(path: Path) -> bool:
    """True if the file looks like a zip or a tar, plain or compressed."""
    with suppress(*_DAMAGE):
        if is_zip(path):
            return True
        with _opened_tar(path):
            return True
    return False


def zip_parts(path: Path) -> list[zipfile.ZipInfo]:
    """Return what the directory of a zip lists, with nothing of it checked.

    Raises:
        InvalidRequest: it cannot be read.
    """
    with explained(shown(path.name)), path.open("rb") as file, zipfile.ZipFile(_Bounded(file)) as archive:
        return archive.infolist()


def words(error: Exception) -> str:
    """Return what an error says, in one line of plain characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return ascii(text[:SHOWN_WORDS])[1:-1]


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Say of a damaged archive where it is.

    Raises:
        InvalidRequest: whatever the standard library raised.
    """
    try:
        yield
    except _DAMAGE as error:
        raise invalid(f"{what} cannot be read as a zip or tar archive: {words(error)}") from error


_Entry = tuple[str, int, IO[bytes] | None]
"""Name, size when unpacked, and the file; None for a folder."""


def _zip(path: Path) -> Iterator[_Entry]:
    with path.open("rb") as file, zipfile.ZipFile(_Bounded(file)) as archive:
        for info in archive.infolist():
            raw = info.orig_filename  # `filename` ends at the first NUL
            mode = stat.S_IFMT(info.external_attr >> 16)
            if info.is_dir() and mode in (0, stat.S_IFDIR):
                yield raw, 0, None
                continue
            if mode not in (0, stat.S_IFREG):
                raise _not_a_file(raw)
            if info.flag_bits & 1:
                raise invalid(f"member {shown(raw)} is encrypted; pack the archive without a password")
            if info.compress_type not in ZIP_METHODS:
                raise invalid(f"member {shown(raw)} is packed by another method than deflate; pack the archive again")
            with archive.open(info) as content:
                yield raw, info.file_size, content


def _tar(path: Path) -> Iterator[_Entry]:
    with _opened_tar(path) as archive:
        for info in archive:
            if info.isdir():
                yield info.name, 0, None
                continue
            if not info.isreg() or info.issparse():
                raise _not_a_file(info.name)
            yield info.name, info.size, archive.extractfile(info)
        _check_end(archive)


def _check_end(archive: tarfile.TarFile) -> None:
    """Refuse a tar that tarfile has stopped reading at a damaged header, as if there was no more."""
    archive.fileobj.seek(archive.offset)
    if archive.fileobj.read(tarfile.BLOCKSIZE).strip(b"\0"):
        last = archive.getmembers()[-1].name if archive.getmembers() else ""
        raise invalid(f"the archive is damaged after member {shown(last)}; pack it again")


def _not_a_file(raw: str) -> Exception:
    return invalid(f"member {shown(raw)} is a link, a device or a sparse file; only files and folders are taken")


@contextmanager
def _opened_tar(path: Path) -> Iterator[tarfile.TarFile]:
    """Open a tar. Decompressing is done here, and not by tarfile, so that `_Bounded` sees what comes out of it."""
    with path.open("rb") as file:
        head = file.read(6)
        file.seek(0)
        unpack = next((unpack for magic, unpack in _COMPRESSIONS.items() if head.startswith(magic)), None)
        content: IO[bytes] = unpack(file) if unpack else file
        with content, tarfile.open(fileobj=_Bounded(content), mode="r:") as archive:
            yield archive


class _Bounded:
    """A file that is not read in huge pieces: both readers take a header at once, whatever size it claims."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        if not -1 <= size <= MAX_READ_BYTES:
            raise ValueError(f"a header claims {size} bytes; the limit is {MAX_READ_BYTES}")
        return self._file.read(MAX_READ_BYTES if size == -1 else size)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - seek, tell, seekable
        return getattr(self._file, name)


class _Places:
    """The places that members take, so that no one takes another's. Two spellings of one name are one place."""

    def __init__(self) -> None:
        self._files: set[str] = set()
        self._folders: set[str] = set()

    def take(self, name: PurePosixPath, raw: str) -> None:
        """Note a file.

        Raises:
            InvalidRequest: the place is taken.
        """
        key = normalize("NFC", str(name))
        if key in self._files:
            raise invalid(f"member {shown(raw)} comes twice")
        above = [normalize("NFC", str(folder)) for folder in name.parents[:-1]]
        if key in self._folders or not self._files.isdisjoint(above):
            raise invalid(f"member {shown(raw)} is a file and a folder at once; rename one of them")
        self._files.add(key)
        self._folders.update(above)


def _safe(raw: str, *, folder: bool) -> PurePosixPath:
    name = PurePosixPath(raw)
    if len(raw) > MAX_PATH_BYTES or len(raw.encode("utf-8", "replace")) > MAX_PATH_BYTES:
        raise invalid(f"member {shown(raw)} has a path of more than {MAX_PATH_BYTES} bytes; shorten it")
    if not raw.isprintable():
        raise invalid(f"member {shown(raw)} has a name with characters that cannot be printed; rename it")
    outside = name.is_absolute() or ".." in name.parts or not (name.parts or folder)
    if outside or "\\" in raw or PureWindowsPath(raw).drive:
        raise invalid(f"member {shown(raw)} would leave the folder; use plain relative names")
    if len(name.parts) > MAX_DEPTH:
        raise invalid(f"member {shown(raw)} lies more than {MAX_DEPTH} folders deep")
    if any(len(part.encode()) > MAX_NAME_BYTES for part in name.parts):
        raise invalid(f"member {shown(raw)} has a name of more than {MAX_NAME_BYTES} bytes; shorten it")
    return name
