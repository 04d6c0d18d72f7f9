"""A set of labelled images on disk, decoded in batches."""

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from shared.decoding import decoded
from shared.errors import InvalidRequest, JobFailure
from shared.settings import get_settings
from worker.clip.model import Transform


@dataclass(frozen=True, slots=True)
class ImageSet:
    """N images with their class. `labels[i]` indexes `classes`; an unlabelled set has one class."""

    name: str
    digest: str
    """SHA-256 of the archive, or of the sorted (path, content) pairs of a folder."""
    paths: tuple[Path, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]
    captions: tuple[str | None, ...] = ()
    """Of each image; empty where the set has none at all."""

    def __len__(self) -> int:
        return len(self.paths)

    def subset(self, indices: Sequence[int]) -> "ImageSet":
        """Return the images at `indices`, with the same classes and a digest of their own."""
        chosen = ",".join(map(str, indices))
        return replace(
            self,
            digest=hashlib.sha256(f"{self.digest}:{chosen}".encode()).hexdigest(),
            paths=tuple(self.paths[i] for i in indices),
            labels=tuple(self.labels[i] for i in indices),
            captions=tuple(self.captions[i] for i in indices) if self.captions else (),
        )

    def names(self) -> list[str]:
        """Return the class name of each image."""
        return [self.classes[i] for i in self.labels]

    def pixels(self, transform: Transform) -> Tensor:
        """Return all images as one tensor [N, 3, H, W]; for sets that fit in memory."""
        return torch.stack([load_image(path, transform) for path in self.paths])

    def batches(self, transform: Transform, batch_size: int) -> Iterator[Tensor]:
        """Yield the images in order, as tensors [<=batch_size, 3, H, W]."""
        parts = [self.paths[start : start + batch_size] for start in range(0, len(self), batch_size)]

        def decode(part: Sequence[Path]) -> Tensor:
            return torch.stack([load_image(path, transform) for path in part])

        with ThreadPoolExecutor(1) as ahead:
            pending = deque(ahead.submit(decode, part) for part in parts[:2])
            for following in [*parts[2:], (), ()][: len(parts)]:
                yield pending.popleft().result()  # meanwhile the next batch is decoded
                if following:
                    pending.append(ahead.submit(decode, following))


def load_image(path: Path, transform: Transform) -> Tensor:
    """Return one image as the model wants it, [3, H, W].

    Raises:
        JobFailure: `invalid_dataset`, where the file is no image that can be decoded, or one beyond the limits.
    """
    try:
        return transform(decoded(path, path.name, get_settings().max_image_pixels))
    except InvalidRequest as error:
        raise JobFailure("invalid_dataset", f"An image cannot be used: {error.errors[0].detail}") from error
