"""The losses of the three stages, on unit features v [N, d] and unit texts t. s is the model's
logit scale.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from worker.methods.engine.margins import leads


def forget_loss(features: Tensor, texts: Tensor) -> Tensor:
    """Mean cosine of forget images with the shared text of their class: minimised in stage 1 (arXiv
    2506.03117, L_f).

    `texts` [K, d] are the texts of what is to be forgotten, each counting the same.
    """
    return (features @ texts.T).mean()


def contrastive_loss(
    features: Tensor, classifier: Tensor, labels: Tensor, scale: Tensor, prior: Tensor | float = 0.0
) -> Tensor:
    """Cross-entropy of s v W^T + `prior` [N, C] against `labels` [N].

    CLIP's contrastive loss with every caption once: images of a batch that share a class share a
    caption, and a caption must not be its own negative. `prior` [C] is the logarithm of how
    often each class is drawn, times a strength: a class drawn more often than others is then not
    preferred for it (logit adjustment, Menon et al. 2021, arXiv 2007.07314)."""
    return F.cross_entropy(scale * features @ classifier.T + prior, labels)


def guard_loss(
    features: Tensor, targets: Tensor, rivals: Tensor, scale: Tensor, margin: float
) -> Tensor:
    """Mean over images i and templates k of relu(max_j s v_i.t_kj - max_c s v_i.t_kc + margin).

    `targets` [K, T, d] are the prompts of what is forgotten (names and synonyms), `rivals` [K,
    C, d] those of the labels that stay, under the same K templates. Zero once every image
    prefers some other label by `margin` logits under every template."""
    return F.relu(leads(features, targets, rivals, scale) + margin).mean()


def distillation_loss(features: Tensor, original: Tensor) -> Tensor:
    """Mean of 1 - v.v_0, v_0 [N, d] being the original model's features of the same images."""
    return (1 - (features * original).sum(dim=-1)).mean()


def statistics_loss(
    measured: Sequence[tuple[Tensor, Tensor]], stored: Sequence[tuple[Tensor, Tensor]]
) -> Tensor:
    """Sum over layers of ||mu - mu_BN||_2 + ||sigma - sigma_BN||_2 (arXiv 2506.03117, L_a).

    Each pair is a layer's mean and standard deviation over batch and space, [channels].
    """
    pairs = zip(measured, stored, strict=True)
    return torch.stack([(m - n).norm() + (s - t).norm() for (m, s), (n, t) in pairs]).sum()
