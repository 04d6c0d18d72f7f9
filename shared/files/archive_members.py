"""Members of an archive (zip, or tar plain or compressed), each one checked before a byte of it is
unpacked.

Nothing in an archive is believed. A member may not leave the folder, be a link, a device or a
sparse file, be encrypted, take another one's place, lie deeper or unpack to more than the limits
allow, or have another size than its header says. An archive inside an archive is a file like any
other: nobody opens it here."""

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
from typing import IO, Any, NamedTuple
from unicodedata import normalize

from shared.errors import InvalidRequest
from shared.files.errors import invalid, shown, words
from shared.files.zip_directory import count_entries, entry_name
from shared.settings import MIB

MAX_READ_BYTES = 128 * MIB
"""What is read at once: one image, a header, the directory of a zip."""
MAX_NAME_BYTES = 255
"""Of one part of a path: what file systems take."""
MAX_PATH_BYTES = 1024
MAX_DEPTH = 16
MAX_FOLDERS = 100_000
"""Twice as many as there may be classes. They hold no byte, but reading each costs time and
memory.
"""
MAX_END_BYTES = 16 * MIB
"""Of zeros at the end of a tar: packers write 10 kB."""
MAX_PARTS = 100_000
"""Of a checkpoint in zip format: a file for each tensor."""
MEMBER_BYTES = 512
"""What every member costs of the bytes that an archive may unpack to, empty or not: a header of
a tar has as many.
"""
JOINERS = "\u200c\u200d"
"""Zero-width (non-)joiners: they are spelling in Persian and in Indian scripts, and hold emoji
together.
"""
ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""The others are unpacked by Python without a bound on what one piece becomes."""
_COMPRESSIONS: dict[bytes, Callable[[IO[bytes]], Any]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\0": lzma.LZMAFile,
}
_DAMAGE = (
    *(
        tarfile.TarError,
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        struct.error,
        EOFError,
        OSError,
    ),
    *(ValueError, LookupError, ArithmeticError, RuntimeError, MemoryError),
)
"""What the two readers of the standard library raise on headers that make no sense."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberLimits:
    """What an archive may hold: members (folders count), bytes when unpacked, unpacked over
    packed bytes.
    """

    members: int
    expanded_bytes: int
    ratio: int


@dataclass(frozen=True, slots=True)
class Member:
    """One file of an archive, to be read before the next one is asked for."""

    name: PurePosixPath
    size: int
    file: IO[bytes]
    guessed: bool = False
    """True if nothing says how the bytes of its name are to be read, and they are no UTF-8: they
    were taken for CP437.
    """

    def read(self) -> bytes:
        """Return the whole content.

        Raises:
            InvalidRequest: it is larger than `MAX_READ_BYTES`, or of another size than the header
                says.
        """
        if self.size > MAX_READ_BYTES:
            raise invalid(
                f"member {shown(self.name)} has {self.size} bytes; the limit for one is "
                f"{MAX_READ_BYTES}"
            )
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
            raise invalid(
                f"member {shown(self.name)} has another size than its header says; pack the "
                "archive again"
            )


def members(
    path: Path, limits: MemberLimits, *, budget: "Budget | None" = None, label: str | None = None
) -> Iterator[Member]:
    """Yield every file of an archive, in its order.

    Args:
        path: the archive.
        limits: what it may hold.
        budget: what is left of them, where it is one of several that count together.
        label: what messages call it; by default its name.

    Raises:
        InvalidRequest: it is no archive, or breaks a rule; the detail names the member.
    """
    places = _Places()
    budget = budget or Budget.of(path, limits)
    with explained(shown(label or path.name)):
        for entry in _zip(path, budget) if is_zip(path) else _tar(path):
            name = _safe(entry.raw, folder=entry.file is None)
            budget.take(entry.raw, entry.size, folder=entry.file is None)
            if entry.file is not None:
                places.take(name, entry.raw)
                yield Member(name, entry.size, entry.file, entry.guessed)


class Budget:
    """What an archive may still unpack to, counted down member by member."""

    def __init__(self, limits: MemberLimits, total: int) -> None:
        self._limits, self._total = limits, total
        self.left = total
        self._members = self._folders = 0

    @property
    def members(self) -> int:
        """How many members there may be in all."""
        return self._limits.members

    @classmethod
    def of(cls, path: Path, limits: MemberLimits) -> "Budget":
        """Return the whole budget of an archive."""
        return cls(
            limits,
            max(MEMBER_BYTES, min(limits.expanded_bytes, limits.ratio * path.stat().st_size)),
        )

    def take(self, raw: str, size: int, *, folder: bool) -> None:
        """Count a member.

        Raises:
            InvalidRequest: it is one too many, or its bytes are.
        """
        self.left -= max(size, MEMBER_BYTES)
        if size < 0 or self.left < 0:
            raise self.spent(f"at member {shown(raw)}")
        self._members += 1
        self._folders += folder
        if self._members > self._limits.members:
            raise invalid(
                f"holds more than {self._limits.members} members; split it into smaller archives"
            )
        if self._folders > MAX_FOLDERS:
            raise self.too_many_folders()

    def check_count(self, count: int, folders: int) -> None:
        """Refuse a directory of more entries or folders than there may be members, before any of
        them is read.

        Raises:
            InvalidRequest: they are too many.
        """
        if count > self._limits.members:
            raise invalid(
                f"holds more than {self._limits.members} members; split it into smaller archives"
            )
        if count * MEMBER_BYTES > self.left:
            raise self.spent(f"with {count} members")
        if folders > MAX_FOLDERS:
            raise self.too_many_folders()

    def too_many_folders(self) -> InvalidRequest:
        """Return the error of an archive with more folders than anybody has classes."""
        return invalid(
            f"holds more than {MAX_FOLDERS} members that are folders; split it into smaller "
            "archives"
        )

    def spent(self, where: str) -> InvalidRequest:
        """Return the error of an archive that unpacks to too much."""
        return invalid(
            f"unpacks to more than {self._total} bytes {where}; split it into smaller ones"
        )


def is_zip(path: Path) -> bool:
    """True if the file is read as a zip: what ends like one is one, whatever it begins with."""
    return zipfile.is_zipfile(path)


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
    with explained(shown(path.name)), path.open("rb") as file:
        if count_entries(file, MAX_PARTS)[0] > MAX_PARTS:
            raise invalid(f"holds more than {MAX_PARTS} parts")
        with zipfile.ZipFile(_Bounded(file)) as archive:
            return archive.infolist()


@contextmanager
def explained(what: str, kind: str = "a zip or tar archive") -> Iterator[None]:
    """Say of a damaged archive where it is.

    Raises:
        InvalidRequest: whatever the standard library raised.
    """
    try:
        yield
    except _DAMAGE as error:
        raise invalid(f"{what} cannot be read as {kind}: {words(error)}") from error


class _Entry(NamedTuple):
    """What an archive says of a member."""

    raw: str
    size: int
    """When unpacked."""
    file: IO[bytes] | None
    """None for a folder."""
    guessed: bool = False


def _zip(path: Path, budget: Budget) -> Iterator[_Entry]:
    with path.open("rb") as file:
        budget.check_count(*count_entries(file, budget.members))
    with path.open("rb") as file, zipfile.ZipFile(_Bounded(file)) as archive:
        for info in archive.infolist():
            raw, guessed = entry_name(info)
            mode = stat.S_IFMT(info.external_attr >> 16)
            if raw.endswith("/") and mode in (0, stat.S_IFDIR):
                yield _Entry(raw, 0, None)
                continue
            if mode not in (0, stat.S_IFREG):
                raise _not_a_file(raw)
            if info.flag_bits & 1:
                raise invalid(
                    f"member {shown(raw)} is encrypted; pack the archive without a password"
                )
            if info.compress_type not in ZIP_METHODS:
                raise invalid(
                    f"member {shown(raw)} is packed by another method than deflate; pack the "
                    "archive again"
                )
            with archive.open(info) as content:
                yield _Entry(raw, info.file_size, content, guessed)


def _tar(path: Path) -> Iterator[_Entry]:
    with _opened_tar(path) as archive:
        last = ""
        while (info := archive.next()) is not None:
            vars(archive)[
                "members"
            ] = []  # tarfile keeps them all, for look-ups that nobody makes here
            last = info.name
            if info.isdir():
                yield _Entry(info.name, 0, None)
                continue
            if not info.isreg() or info.issparse():
                raise _not_a_file(info.name)
            yield _Entry(info.name, info.size, archive.extractfile(info))
        _check_end(archive, last)


def _check_end(archive: tarfile.TarFile, last: str) -> None:
    """Read what is left of a tar: packed ones have their checksum there, and nothing else may stand
    there.

    tarfile stops at a damaged header, and at the end of the first of two tars in one file, as if
    there was no more."""
    file: Any = archive.fileobj
    file.seek(archive.offset)
    whole, read = True, 0
    while chunk := file.read(MIB):
        read += len(chunk)
        if read > MAX_END_BYTES:
            raise invalid(
                f"unpacks to more than {MAX_END_BYTES} bytes after its last member; pack it again"
            )
        if chunk.strip(b"\0"):
            where = (
                "is damaged"
                if whole and chunk[: tarfile.BLOCKSIZE].strip(b"\0")
                else "holds something more"
            )
            raise invalid(f"the archive {where} after member {shown(last)}; pack it again")
        whole = False


def _not_a_file(raw: str) -> Exception:
    return invalid(
        f"member {shown(raw)} is a link, a device or a sparse file; only files and folders are "
        "taken"
    )


@contextmanager
def _opened_tar(path: Path) -> Iterator[tarfile.TarFile]:
    """Open a tar. Decompressing is done here, and not by tarfile, so that `_Bounded` sees what
    comes out of it.
    """
    with path.open("rb") as file:
        head = file.read(6)
        file.seek(0)
        unpack = next(
            (unpack for magic, unpack in _COMPRESSIONS.items() if head.startswith(magic)), None
        )
        content: IO[bytes] = unpack(file) if unpack else file
        with content, tarfile.open(fileobj=_Bounded(content), mode="r:") as archive:
            yield archive


class _Bounded:
    """A file that is not read in huge pieces: both readers take a header at once, whatever size
    it claims.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        if not -1 <= size <= MAX_READ_BYTES:
            raise ValueError(f"a header claims {size} bytes; the limit is {MAX_READ_BYTES}")
        return self._file.read(MAX_READ_BYTES if size == -1 else size)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - seek, tell, seekable
        return getattr(self._file, name)


class _Places:
    """The places that members take, so that no one takes another's. Two spellings of one name
    are one place.
    """

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
    name = PurePosixPath(normalize("NFC", raw))
    if len(raw) > MAX_PATH_BYTES or len(raw.encode("utf-8", "replace")) > MAX_PATH_BYTES:
        raise invalid(
            f"member {shown(raw)} has a path of more than {MAX_PATH_BYTES} bytes; shorten it"
        )
    if not raw.translate(dict.fromkeys(map(ord, JOINERS))).isprintable():
        raise invalid(
            f"member {shown(raw)} has a name with characters that cannot be printed; rename it"
        )
    windows = PureWindowsPath(raw)
    outside = name.is_absolute() or ".." in windows.parts or not (name.parts or folder)
    if outside or windows.drive or windows.root:
        raise invalid(f"member {shown(raw)} would leave the folder; use plain relative names")
    if "\\" in raw:
        raise invalid(
            f"member {shown(raw)} has a backslash in its name; separate folders by /, or rename it"
        )
    if len(name.parts) > MAX_DEPTH:
        raise invalid(f"member {shown(raw)} lies more than {MAX_DEPTH} folders deep")
    if any(len(part.encode()) > MAX_NAME_BYTES for part in name.parts):
        raise invalid(
            f"member {shown(raw)} has a name of more than {MAX_NAME_BYTES} bytes; shorten it"
        )
    return name
