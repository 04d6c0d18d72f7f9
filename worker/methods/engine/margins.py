"""By how much an image prefers what is to be forgotten: what guards, in every method, push below
zero.
"""

import torch
from torch import Tensor


def leads(features: Tensor, targets: Tensor, rivals: Tensor, scale: Tensor | float) -> Tensor:
    """Return by how many logits the best of `targets` [K, T, d] is ahead of the best of `rivals`
    [K, C, d], [N, K].

    Features [N, d] and texts are unit vectors, the same K templates for both; `scale` is the
    model's logit scale."""
    wanted = scale * torch.einsum("nd,ktd->nkt", features, targets).amax(dim=-1)
    others = scale * torch.einsum("nd,kcd->nkc", features, rivals).amax(dim=-1)
    lead: Tensor = wanted - others
    return lead
