"""Sets of images as they come in: every image is decoded once and the classes are counted. Needs no
torch.

`image_sets.py` reads them, `dataset_layouts.py` says how they are laid out, `archive_members.py`
what a member may not be."""

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from shared.files.archive_members import MemberLimits
from shared.files.decoding import decoded
from shared.files.image_sets import ArchiveFormat, Contents, Found, Take, read_images, set_format
from shared.settings import Settings

MEMBERS_PER_IMAGE = 3
"""An image, its label, and a folder or a note."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveLimits:
    """What an archive may hold: images, bytes when unpacked, unpacked over packed bytes, pixels
    in one image.
    """

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
            members=MEMBERS_PER_IMAGE * self.images,
            expanded_bytes=self.expanded_bytes,
            ratio=self.ratio,
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
    layout: str
    """As in `Contents`, and so are the next three."""
    left_out: dict[str, int]
    skipped: int
    warnings: tuple[str, ...]


def inspect_archive(
    path: Path, limits: ArchiveLimits, *, skip_invalid: bool = False, sha256: str | None = None
) -> ArchiveSummary:
    """Read an archive once, decode every image in it and count the classes.

    Args:
        path: the archive, or a Parquet file.
        limits: what it may hold.
        skip_invalid: leave out what cannot be used, and count it, instead of refusing the archive
            for it.
        sha256: the file's, where it is known.

    Raises:
        InvalidRequest: it is no archive of images, or breaks a rule; the details name the members.
    """
    contents = read_set(path, limits, lambda found: check(found, limits), skip_invalid=skip_invalid)
    return ArchiveSummary(
        format=set_format(path, contents.layout),
        images=len(contents.images),
        classes=contents.classes,
        sha256=sha256 or file_sha256(path),
        layout=contents.layout,
        left_out=contents.left_out,
        skipped=contents.skipped,
        warnings=contents.warnings,
    )


def read_set(
    path: Path, limits: ArchiveLimits, take: Take, *, skip_invalid: bool = False
) -> Contents:
    """Read an archive or a folder as `read_images` does, within limits.

    Raises:
        InvalidRequest: as there.
    """
    return read_images(path, limits.of_members(), limits.images, take, skip_invalid=skip_invalid)


def check(found: Found, limits: ArchiveLimits) -> None:
    """Decode an image, to know that it can be.

    Raises:
        InvalidRequest: it cannot, or breaks a limit.
    """
    file = found.path if found.content is None else io.BytesIO(found.content)
    if file is not None:
        decoded(file, found.name, limits.pixels)


def set_classes(path: Path, limits: ArchiveLimits) -> dict[str, int]:
    """Return how many images of each class there are in an archive or a folder; they are not
    decoded.

    Raises:
        InvalidRequest: it is no set of images, or breaks a rule.
    """
    return read_set(path, limits, lambda _: None).classes


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
