"""Which images a method may learn from, which choose its mixing weight, and which measure the result.

The order is that of the SHA-256 of each file, so a split depends on nothing but the images: 80 % to learn from, 20 % to
measure. A quarter of what is to be learnt from is set aside for calibration.
"""

import hashlib
from collections.abc import Collection
from pathlib import Path

from shared.splits import CALIBRATION_SHARE, TEST_SHARE, part_of
from worker.data.images import ImageSet

__all__ = ["CALIBRATION_SHARE", "TEST_SHARE", "content_hash", "content_hashes", "split", "without"]


def split(images: ImageSet, share: float) -> tuple[ImageSet, ImageSet]:
    """Return (rest, part): `share` of the images, and at least one of two or more, goes into the part."""
    order = sorted(range(len(images)), key=lambda i: content_hash(images.paths[i]))
    count = part_of(len(images), share)
    return images.subset(sorted(order[count:])), images.subset(sorted(order[:count]))


def without(images: ImageSet, seen: Collection[str]) -> ImageSet:
    """Return the images whose content hash is not among `seen`."""
    return images.subset([i for i, path in enumerate(images.paths) if content_hash(path) not in seen])


def content_hashes(*sets: ImageSet | None) -> set[str]:
    """Return the content hash of every image of some sets."""
    return {content_hash(path) for images in sets if images for path in images.paths}


def content_hash(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
