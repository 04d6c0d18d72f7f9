"""The bench's images and how benchmarks measure on them: CIFAR-10 and PACS, each with its own
label set.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from worker.clip import Clip, zero_shot_classifier
from worker.clip.checkpoint import load_clip
from worker.data.images import ImageSet

DOMAINS = ("photo", "art_painting", "cartoon", "sketch")
PACS = ("dog", "elephant", "giraffe", "guitar", "horse", "house", "person")
CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class Item(NamedTuple):
    """One image on disk."""

    path: Path
    source: str
    """`cifar10`, or a PACS domain."""
    label: str


def require_models(parser: argparse.ArgumentParser, data: Path) -> None:
    """End the command with a usage error where the bench's models are missing."""
    if not (data / "models").is_dir():
        parser.error(
            f"--data: there is no {data}/models; benchmarks/README.md says what belongs there"
        )


def frozen_clip(folder: Path, device: str | torch.device = "cpu") -> Clip:
    """Load a model of a folder in open_clip's local-dir layout, without gradients."""
    with TemporaryDirectory() as scratch:
        clip = load_clip(f"local-dir:{folder}", scratch=Path(scratch), device=device)
    clip.model.requires_grad_(False)
    return clip


def items(data: Path, split: str, cifar_per_class: int) -> list[Item]:
    """Return all PACS images of a split and some of CIFAR-10."""
    pacs = [
        Item(p, d, c)
        for d in DOMAINS
        for c in PACS
        for p in sorted((data / "pacs" / split / d / c).iterdir())
    ]
    cifar = [
        Item(p, "cifar10", c)
        for c in CIFAR
        for p in sorted((data / "cifar10" / split / c).iterdir())[:cifar_per_class]
    ]
    return pacs + cifar


def labels_of(source: str) -> tuple[str, ...]:
    """Return the label set to which images of a source belong."""
    return CIFAR if source == "cifar10" else PACS


def image_set(chosen: list[Item]) -> ImageSet:
    """Return images as the engine takes them."""
    classes = labels_of(chosen[0].source)
    numbers = tuple(classes.index(item.label) for item in chosen)
    return ImageSet("benchmark", "", tuple(item.path for item in chosen), numbers, classes)


def embed(clip: Clip, pixels: Tensor) -> Tensor:
    """Return unit embeddings [N, d] of images [N, 3, H, W]."""
    return F.normalize(raw_embeddings(clip, pixels), dim=-1)


@torch.no_grad()
def raw_embeddings(clip: Clip, pixels: Tensor) -> Tensor:
    """Return embeddings [N, d] of images [N, 3, H, W], not normalised, in bfloat16 on the way."""
    with torch.autocast(clip.device.type, dtype=torch.bfloat16):
        parts = pixels.to(memory_format=torch.channels_last).split(128)
        encode = cast(Callable[[Tensor], Tensor], clip.model.encode_image)
        return torch.cat([encode(part.float().to(clip.device)) for part in parts]).float()


def share(right: Tensor, items: list[Item], wanted: Callable[[Item], bool]) -> float:
    """Return the percentage of right answers among the wanted items; nan for none."""
    return 100 * right[torch.tensor([wanted(item) for item in items])].float().mean().item()


def answers(clip: Clip, embeddings: Tensor, tests: list[Item], template: str) -> Tensor:
    """Return which test images the classifier of their own data set gets right, [N]."""
    right = torch.zeros(len(tests), dtype=torch.bool)
    for labels in (PACS, CIFAR):
        own = torch.tensor([labels_of(item.source) == labels for item in tests])
        predicted = (
            (embeddings[own] @ zero_shot_classifier(clip, labels, [template]).T).argmax(dim=1).cpu()
        )
        truth = torch.tensor(
            [labels.index(item.label) for item in tests if labels_of(item.source) == labels]
        )
        right[own] = predicted == truth
    return right
