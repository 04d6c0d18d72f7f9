"""What an image tower makes of images, computed once for each model and set of images, and read
by every measure.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worker.clip import Clip, encode_images
from worker.data.images import ImageSet
from worker.evaluation.cache import FeatureCache

BATCH_SIZE = 64

Report = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Features:
    """Of N images, on the CPU, in float32: an evaluation that someone else writes must come to
    the same numbers.
    """

    embeddings: Tensor
    """Unit vectors [N, d]."""
    penultimate: Tensor | None
    """[N, w]: what enters the tower's last linear map; of a ResNet its last block, averaged over
    the picture. None where the architecture has neither."""


def features_of(
    clip: Clip, images: ImageSet, cache: FeatureCache | None = None, report: Report | None = None
) -> Features:
    """Return the features of a set of images, from the cache where the same weights saw them
    before.

    `report(done, total)` is called after every batch of images.
    """
    kept = cache.load(clip.digest, images.digest) if cache else None
    if kept is not None:
        return Features(kept["embeddings"], kept.get("penultimate"))
    clip.model.to(memory_format=torch.channels_last)  # faster convolutions, same numbers
    parts = []
    for pixels in images.batches(clip.transform, BATCH_SIZE):
        parts.append(_encode(clip, pixels))
        if report:
            report(sum(len(part.embeddings) for part in parts), len(images))
    features = _joined(parts)
    if cache is None:
        return features
    tensors = {"embeddings": features.embeddings, "penultimate": features.penultimate}
    cache.save(
        clip.digest, images.digest, {name: t for name, t in tensors.items() if t is not None}
    )
    return features


def features_of_pixels(clip: Clip, pixels: Tensor) -> Features:
    """Return the features of normalised pixels [N, 3, H, W]."""
    return _joined([_encode(clip, part.float()) for part in pixels.split(BATCH_SIZE)])


def _joined(parts: list[Features]) -> Features:
    penultimate = [part.penultimate for part in parts if part.penultimate is not None]
    embeddings = torch.cat([part.embeddings for part in parts])
    return Features(embeddings, torch.cat(penultimate) if len(penultimate) == len(parts) else None)


@torch.no_grad()
def _encode(clip: Clip, pixels: Tensor) -> Features:
    visual: Any = clip.model.visual
    batch = pixels.to(clip.device, memory_format=torch.channels_last)
    projection = getattr(visual, "proj", None)
    if isinstance(projection, nn.Parameter):
        with _without_projection(visual):
            pooled = visual(batch)
        return Features(
            F.normalize(pooled @ projection, dim=-1).float().cpu(), pooled.float().cpu()
        )
    seen: list[Tensor] = []
    with _watched(visual, seen):
        embeddings = encode_images(clip, batch)
    return Features(embeddings.float().cpu(), seen[0].float().cpu() if seen else None)


@contextmanager
def _without_projection(visual: Any) -> Iterator[None]:  # noqa: ANN401 - a tower of open_clip
    projection, visual.proj = visual.proj, None
    try:
        yield
    finally:
        visual.proj = projection


@contextmanager
def _watched(visual: Any, seen: list[Tensor]) -> Iterator[None]:  # noqa: ANN401 - a tower of open_clip
    """Take what leaves a ResNet's last block, or what enters the head of a timm tower."""
    block, head = getattr(visual, "layer4", None), getattr(visual, "head", None)
    if isinstance(block, nn.Module):
        hook = block.register_forward_hook(lambda _, __, out: seen.append(out.mean(dim=(2, 3))))
    elif isinstance(head, nn.Module):
        hook = head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].flatten(1)))
    else:
        yield
        return
    try:
        yield
    finally:
        hook.remove()
