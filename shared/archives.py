"""Archives of images (zip, or tar plain or compressed): what is in them, and how they are unpacked. Needs no torch.

`shared/layouts.py` says how they are laid out. Nothing is believed: a member may not leave the folder, be a link or a
device, be encrypted, come twice, or unpack to more than the limits allow. What is neither an image nor a label is an
error, so that no image is left out unnoticed.
"""

import hashlib
import io
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Literal, Self

from PIL import Image

from shared.errors import InvalidRequest
from shared.layouts import IMAGE_SUFFIXES, LABEL_SUFFIXES, folder_classes, invalid, is_image, is_shard, shard_classes
from shared.settings import MIB, Settings

ArchiveFormat = Literal["zip", "tar", "webdataset"]

IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")

MAX_MEMBER_BYTES = 128 * MIB
"""One image, all labels together, or a header may not need more memory than this."""
MAX_NAME_BYTES = 255
"""Of one part of a path: what file systems take."""
IGNORED_NAMES = frozenset({"thumbs.db", "desktop.ini"})
IGNORED_SUFFIXES = frozenset({".md", ".csv"})

_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, NotImplementedError)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveLimits:
    """What an archive may hold: images, bytes when unpacked, unpacked over packed bytes, pixels in one image."""

    images: int
    expanded_bytes: int
    ratio: int
    pixels: int

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the limits that the operator has set."""
        return cls(
            images=settings.max_archive_images,
            expanded_bytes=settings.max_archive_expanded_bytes,
            ratio=settings.max_archive_ratio,
            pixels=settings.max_image_pixels,
        )


@dataclass(frozen=True, slots=True)
class ArchiveSummary:
    """What was found in an archive."""

    format: ArchiveFormat
    images: int
    classes: dict[str, int]
    """Class name -> number of images, sorted by name."""
    sha256: str
    """Of the archive file."""


def inspect_archive(path: Path, limits: ArchiveLimits) -> ArchiveSummary:
    """Read an archive once, decode every image in it and count the classes.

    Raises:
        InvalidRequest: it is no archive of images, or breaks a rule; the detail names the member.
    """
    images: list[PurePosixPath] = []
    texts: dict[PurePosixPath, bytes] = {}
    text_bytes = 0
    for name, content in _files(path, limits):
        if is_image(name):
            check_image(io.BytesIO(content), str(name), limits.pixels)
            images.append(name)
        else:
            texts[name] = content
            text_bytes += len(content)
            if text_bytes > MAX_MEMBER_BYTES:
                raise invalid(f"holds more than {MAX_MEMBER_BYTES} bytes of labels; keep captions out of it")
    form = _format(path, images, texts)
    classes = shard_classes(images, texts) if form == "webdataset" else folder_classes(images)
    return ArchiveSummary(form, len(images), dict(sorted(Counter(classes).items())), file_sha256(path))


def archive_format(path: Path, limits: ArchiveLimits) -> ArchiveFormat:
    """Check every member of an archive, without decoding images, and return its format.

    Raises:
        InvalidRequest: it is no archive, or breaks a rule; the detail names the member.
    """
    names = [name for name, _ in _files(path, limits)]
    return _format(path, filter(is_image, names), (name for name in names if not is_image(name)))


def _format(path: Path, images: Iterable[PurePosixPath], others: Iterable[PurePosixPath]) -> ArchiveFormat:
    if is_shard(images, others):
        return "webdataset"
    return "zip" if zipfile.is_zipfile(path) else "tar"


def extract_archive(path: Path, folder: Path, limits: ArchiveLimits) -> None:
    """Unpack the images of an archive below `folder`.

    Raises:
        InvalidRequest: as `inspect_archive`, except that images are not decoded.
    """
    for name, content in _files(path, limits):
        file = folder / name
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("xb") as out:  # "x": no member replaces another, or what was there before
                out.write(content)
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            raise invalid(f"member {str(name)!r} has the place of another one") from error


def check_image(file: BinaryIO, member: str, max_pixels: int) -> None:
    """Decode an image.

    Raises:
        InvalidRequest: it cannot be decoded, or has more than `max_pixels` pixels.
    """
    try:
        with Image.open(file, formats=IMAGE_FORMATS) as image:
            width, height = image.size
            if width * height <= max_pixels:
                image.load()
    except Exception as error:  # Pillow's plugins raise whatever broken input leads them to
        raise invalid(f"member {member!r} is not an image that can be decoded: {error}") from error
    if width * height > max_pixels:
        raise invalid(f"member {member!r} has {width} x {height} pixels; the limit is {max_pixels}")


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files(path: Path, limits: ArchiveLimits) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Yield (name, content) of every image and label, having checked every member before a byte of it is unpacked."""
    seen: set[PurePosixPath] = set()
    budget = min(limits.expanded_bytes, limits.ratio * path.stat().st_size)
    expanded = 0
    with _named(path.name):
        for raw, size, content in _zip_members(path) if zipfile.is_zipfile(path) else _tar_members(path):
            name = _safe(raw)
            expanded += size
            if expanded > budget:
                raise invalid(f"unpacks to more than {budget} bytes at member {raw!r}; split it into smaller archives")
            if name in seen:
                raise invalid(f"member {raw!r} comes twice")
            seen.add(name)
            if len(seen) > 2 * limits.images:  # an image and its label
                raise invalid(f"holds more than {limits.images} images; split it into smaller archives")
            if not _ignored(name):
                yield name, _read(content, size, raw)


Member = tuple[str, int, BinaryIO]
"""Name, size when unpacked, and a file to read it from before the next one is asked for."""


def _zip_members(path: Path) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.is_dir():
                continue
            if info.flag_bits & 1:
                raise invalid(f"member {info.filename!r} is encrypted")
            mode = info.external_attr >> 16
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                raise invalid(f"member {info.filename!r} is a link or a device; only files and folders are taken")
            with archive.open(info) as file:
                yield info.filename, info.file_size, file  # type: ignore[misc]


def _tar_members(path: Path) -> Iterator[Member]:
    with tarfile.open(path, "r:*") as archive:
        archive.fileobj = _Bounded(archive.fileobj)  # type: ignore[assignment, arg-type]
        for info in archive:
            if info.isdir():
                continue
            file = archive.extractfile(info) if info.isreg() else None
            if file is None:
                raise invalid(f"member {info.name!r} is a link or a device; only files and folders are taken")
            yield info.name, info.size, file  # type: ignore[misc]


class _Bounded:
    """A file that refuses to be read in huge pieces: tarfile reads an extended header at once, whatever its size."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell, self.close = file.seek, file.tell, file.close

    def read(self, size: int) -> bytes:
        if size > MAX_MEMBER_BYTES:
            raise tarfile.ReadError(f"a header or member needs {size} bytes; the limit is {MAX_MEMBER_BYTES}")
        return self._file.read(size)


def _safe(raw: str) -> PurePosixPath:
    name = PurePosixPath(raw)
    if "\\" in raw or "\0" in raw or name.is_absolute() or ".." in name.parts or not name.parts:
        raise invalid(f"member {raw!r} would leave the folder; use plain relative names")
    if any(len(part.encode()) > MAX_NAME_BYTES for part in name.parts):
        raise invalid(f"member {raw[:100]!r}... has a name of more than {MAX_NAME_BYTES} bytes; shorten it")
    return name


def _ignored(name: PurePosixPath) -> bool:
    """True for what file managers leave behind and for notes; false for what is needed."""
    if any(part.startswith(".") or part == "__MACOSX" for part in name.parts):
        return True
    suffix = name.suffix.lower()
    if name.name.lower() in IGNORED_NAMES or suffix in IGNORED_SUFFIXES:
        return True
    if suffix in IMAGE_SUFFIXES or suffix in LABEL_SUFFIXES:
        return False
    raise invalid(f"member {str(name)!r} is not an image; take it out, or name it by its format, e.g. {name.stem}.png")


def _read(file: BinaryIO, size: int, member: str) -> bytes:
    if size > MAX_MEMBER_BYTES:
        raise invalid(f"member {member!r} has {size} bytes; the limit for one image is {MAX_MEMBER_BYTES}")
    return file.read(size)


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Say of damage where it is."""
    try:
        yield
    except InvalidRequest:
        raise
    except _DAMAGE as error:
        raise invalid(f"{name!r} cannot be read as a zip or tar archive of images: {error}") from error
