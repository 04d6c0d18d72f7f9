"""Which images a method may learn from, which choose its mixing weight, and which measure the
result.

The order is that of the SHA-256 of each file, so a split depends on nothing but the images: 80 %
to learn from, 20 % to measure. A quarter of what is to be learnt from is set aside for
calibration. Copies of one file stay on one side."""

from collections.abc import Collection

from shared.splits import CALIBRATION_SHARE, TEST_SHARE, part_of
from worker.data.images import ImageSet

__all__ = ["CALIBRATION_SHARE", "TEST_SHARE", "can_split", "content_hashes", "split", "without"]


def split(images: ImageSet, share: float) -> tuple[ImageSet, ImageSet]:
    """Return (rest, part): about `share` of the images, and at least one file of two or more, goes
    into the part.

    Args:
        images: two different files at the least (`can_split`).
        share: in (0, 1).
    """
    hashes = images.hashes()
    order = sorted(range(len(images)), key=lambda i: hashes[i])
    wanted = part_of(len(images), share)
    cuts = [at for at in range(1, len(order)) if hashes[order[at - 1]] != hashes[order[at]]]
    count = min(cuts, key=lambda at: abs(at - wanted))
    return images.subset(sorted(order[count:])), images.subset(sorted(order[:count]))


def can_split(images: ImageSet) -> bool:
    """Return whether there are two different files to divide."""
    return len(set(images.hashes())) > 1


def without(images: ImageSet, seen: Collection[str]) -> ImageSet:
    """Return the images whose content hash is not among `seen`: the set itself where that is all
    of them.
    """
    kept = [i for i, digest in enumerate(images.hashes()) if digest not in seen]
    return images if len(kept) == len(images) else images.subset(kept)


def content_hashes(*sets: ImageSet | None) -> set[str]:
    """Return the content hash of every image of some sets."""
    return {digest for images in sets if images for digest in images.hashes()}
