"""Zero-shot top-1 predictions, in float32: an evaluation that someone else writes must come to the same numbers."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from worker.clip import Clip, encode_images, zero_shot_classifier
from worker.data.images import ImageSet

BATCH_SIZE = 64

Report = Callable[[int, int], None]


@torch.no_grad()
def embed(clip: Clip, images: ImageSet, report: Report | None = None) -> Tensor:
    """Return unit image embeddings [N, d] on the CPU; `report(done, total)` is called after every batch of images."""
    clip.model.to(memory_format=torch.channels_last)  # faster convolutions, same numbers
    parts = []
    done = 0
    for pixels in images.batches(clip.transform, BATCH_SIZE):
        batch = pixels.to(clip.device, memory_format=torch.channels_last)
        parts.append(encode_images(clip, batch).float().cpu())
        done += len(pixels)
        if report:
            report(done, len(images))
    return torch.cat(parts)


def predict(embeddings: Tensor, clip: Clip, labels: Sequence[str], templates: Sequence[str]) -> Tensor:
    """Return the index of the predicted label [N] for unit image embeddings [N, d]."""
    weights = zero_shot_classifier(clip, labels, templates).float().cpu()
    return (embeddings @ weights.T).argmax(dim=1)
