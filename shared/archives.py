"""Archives of images (zip, or tar plain or compressed): what is in them, and how they are unpacked. Needs no torch.

`shared/layouts.py` says how they are laid out, `shared/members.py` what a member may not be. What is neither an image
nor a label is an error, so that no image is left out unnoticed.
"""

import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Literal, Self

from PIL import Image

from shared.layouts import (
    IMAGE_SUFFIXES,
    LABEL_SUFFIXES,
    check_samples,
    folder_classes,
    invalid,
    is_image,
    is_shard,
    shard_classes,
)
from shared.members import MemberLimits, is_zip, members, shown, words
from shared.settings import MIB, Settings

ArchiveFormat = Literal["zip", "tar", "webdataset"]

IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")

MAX_LABEL_BYTES = 128 * MIB
"""Of all labels together."""
MAX_CLASSES = 50_000
MAX_SIDES = 100
"""The longer side of an image over the shorter: models scale the shorter one, and a thread would become a plane."""
MEMBERS_PER_IMAGE = 3
"""An image, its label, and a folder or a note."""

IGNORED_NAMES = frozenset({"thumbs.db", "desktop.ini"})
IGNORED_SUFFIXES = frozenset({".md", ".csv"})


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

    def of_members(self) -> MemberLimits:
        """Return what is left of them where nobody looks at images."""
        return MemberLimits(
            members=MEMBERS_PER_IMAGE * self.images, expanded_bytes=self.expanded_bytes, ratio=self.ratio
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


def inspect_archive(path: Path, limits: ArchiveLimits, *, sha256: str | None = None) -> ArchiveSummary:
    """Read an archive once, decode every image in it and count the classes; `sha256` is the file's, where it is known.

    Raises:
        InvalidRequest: it is no archive of images, or breaks a rule; the detail names the member.
    """
    images: list[PurePosixPath] = []
    texts: dict[PurePosixPath, bytes] = {}
    text_bytes = 0
    for name, content in _files(path, limits):
        if is_image(name):
            decoded(io.BytesIO(content), str(name), limits.pixels)
            images.append(name)
        else:
            texts[name] = content
            text_bytes += len(content)
            if text_bytes > MAX_LABEL_BYTES:
                raise invalid(
                    f"holds more than {MAX_LABEL_BYTES} bytes of labels and captions; split it, or shorten them"
                )
    form = _format(path, images, texts)
    classes = Counter(shard_classes(images, texts) if form == "webdataset" else folder_classes(images))
    if len(classes) > MAX_CLASSES:
        raise invalid(f"holds {len(classes)} classes; the limit is {MAX_CLASSES}")
    return ArchiveSummary(form, len(images), dict(sorted(classes.items())), sha256 or file_sha256(path))


def archive_format(path: Path, limits: ArchiveLimits) -> ArchiveFormat:
    """Check every member of an archive, without decoding images, and return its format.

    Raises:
        InvalidRequest: it is no archive, or breaks a rule; the detail names the member.
    """
    names = [name for name, _ in _files(path, limits)]
    form = _format(path, filter(is_image, names), (name for name in names if not is_image(name)))
    if form == "webdataset":
        check_samples(names)
    return form


def _format(path: Path, images: Iterable[PurePosixPath], others: Iterable[PurePosixPath]) -> ArchiveFormat:
    shard = is_shard(images, others)
    if is_zip(path):
        if shard:
            raise invalid("holds labels beside its images, as WebDataset shards do; pack it as a tar")
        return "zip"
    return "webdataset" if shard else "tar"


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
            raise invalid(f"member {shown(name)} has the place of another one") from error


def decoded(file: BinaryIO | Path, member: str, max_pixels: int) -> Image.Image:
    """Return an image in RGB.

    Raises:
        InvalidRequest: it cannot be decoded, has more than `max_pixels` pixels, or is much longer than wide.
    """
    try:
        with Image.open(file, formats=IMAGE_FORMATS) as image:
            width, height = image.size
            if (wrong := _wrong_size(width, height, max_pixels)) is None:
                return image.convert("RGB")
    except Exception as error:  # Pillow's plugins raise whatever broken input leads them to
        raise invalid(f"member {shown(member)} is not an image that can be decoded: {words(error)}") from error
    raise invalid(f"member {shown(member)} has {width} x {height} pixels; {wrong}")


def _wrong_size(width: int, height: int, max_pixels: int) -> str | None:
    if width * height > max_pixels:
        return f"the limit is {max_pixels}"
    if max(width, height) > MAX_SIDES * min(width, height):
        return f"one side may be {MAX_SIDES} times the other"
    return None


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files(path: Path, limits: ArchiveLimits) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Yield (name, content) of every image and label."""
    images = 0
    for member in members(path, limits.of_members()):
        if _ignored(member.name):
            continue
        images += is_image(member.name)
        if images > limits.images:
            raise invalid(f"holds more than {limits.images} images; split it into smaller archives")
        yield member.name, member.read()


def _ignored(name: PurePosixPath) -> bool:
    """True for what file managers leave behind and for notes; false for what is needed."""
    if any(part.startswith(".") or part == "__MACOSX" for part in name.parts):
        return True
    suffix = name.suffix.lower()
    if name.name.lower() in IGNORED_NAMES or suffix in IGNORED_SUFFIXES:
        return True
    if suffix in IMAGE_SUFFIXES or suffix in LABEL_SUFFIXES:
        return False
    raise invalid(f"member {shown(name)} is not an image; take it out, or name it by its format, e.g. a.png")
