"""A set of labelled images on disk, decoded in batches."""

import hashlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

from shared.errors import InvalidRequest, JobFailure
from shared.files.decoding import decoded
from shared.files.image_archives import file_sha256
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
    known: dict[Path, str] = field(default_factory=dict, compare=False, repr=False)
    """Content hashes that were computed already; a set and all that is made of it share them."""

    members: dict[Path, str] = field(default_factory=dict, compare=False, repr=False)
    """The names that the images have in their archive, where they were written to places with
    other names.
    """

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

    def renamed(self, names: Mapping[str, str]) -> "ImageSet":
        """Return the same images with the classes under `names`; classes of one name become one."""
        of_each = [names[name] for name in self.classes]
        if tuple(of_each) == self.classes:
            return self
        classes = tuple(sorted(set(of_each)))
        labels = tuple(classes.index(of_each[number]) for number in self.labels)
        return replace(self, classes=classes, labels=labels)

    def member(self, path: Path) -> str:
        """Return the name of an image as whoever gave the set knows it: its last folder and
        file.
        """
        return "/".join(PurePosixPath(self.members.get(path, path.as_posix())).parts[-2:])

    def hashes(self) -> list[str]:
        """Return the SHA-256 of each image's file; every file is read once, whoever asks."""
        for path in self.paths:
            if path not in self.known:
                self.known[path] = file_sha256(path)
        return [self.known[path] for path in self.paths]

    def names(self) -> list[str]:
        """Return the class name of each image."""
        return [self.classes[i] for i in self.labels]

    def pixels(self, transform: Transform) -> Tensor:
        """Return all images as one tensor [N, 3, H, W]; for sets that fit in memory."""
        return torch.stack([load_image(path, transform) for path in self.paths])

    def batches(self, transform: Transform, batch_size: int) -> Iterator[Tensor]:
        """Yield the images in order, as tensors [<=batch_size, 3, H, W]."""
        parts = [
            self.paths[start : start + batch_size] for start in range(0, len(self), batch_size)
        ]

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
        JobFailure: `invalid_dataset`, where the file is no image that can be decoded, or one beyond
            the limits.
    """
    try:
        return transform(decoded(path, path.name, get_settings().max_image_pixels))
    except InvalidRequest as error:
        raise JobFailure(
            "invalid_dataset", f"An image cannot be used: {error.errors[0].detail}"
        ) from error
