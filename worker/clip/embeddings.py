"""Images and texts to unit vectors."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from worker.clip.model import Clip


def encode_images(clip: Clip, pixels: Tensor) -> Tensor:
    """Return unit image embeddings [N, d] of normalised pixels [N, 3, H, W]. Differentiable."""
    return F.normalize(cast(Tensor, clip.model.encode_image(pixels)), dim=-1)  # type: ignore[operator]


def encode_texts(clip: Clip, texts: Sequence[str]) -> Tensor:
    """Return unit text embeddings [N, d] of N strings. Differentiable."""
    tokens = clip.tokenizer(list(texts)).to(clip.device)
    return F.normalize(cast(Tensor, clip.model.encode_text(tokens)), dim=-1)  # type: ignore[operator]


@torch.no_grad()
def embed_texts(clip: Clip, texts: Sequence[str], batch_size: int = 512) -> Tensor:
    """Return unit text embeddings [N, d] without a gradient, in batches."""
    return torch.cat(
        [encode_texts(clip, texts[i : i + batch_size]) for i in range(0, len(texts), batch_size)]
    )
