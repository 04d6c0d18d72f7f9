"""Losses of the synthetic-sample method."""

import torch
from torch import Tensor
from torch.nn import functional as F


def lipschitz_loss(image: Tensor, text: Tensor, perturbed: Tensor, distance: Tensor) -> Tensor:
    """Lipschitz smoothing of both towers (arXiv 2407.07485, figure 1), as the published code sums
    it.

        L = 1 / (4 n) sum_j sum_i ( ||u_i - e'_ij|| + ||v_i - e'_ij|| ) / ||x_i - x'_ij||

    Args:
        image: v [N, d], embeddings of the samples, not normalised, with gradient.
        text: u [N, d], embeddings of "A picture of {class}", not normalised, with gradient.
        perturbed: e' [n, N, d], embeddings of n noisy copies, without gradient.
        distance: ||x - x'|| [n, N], of the perturbation after clamping.
    """
    of_text = (text - perturbed).norm(dim=-1)
    of_image = (image - perturbed).norm(dim=-1)
    loss: Tensor = ((of_text + of_image) / distance.clamp_min(1e-12)).sum() / (4 * len(perturbed))
    return loss


def mixtures(
    features: Tensor, others: Tensor, low: float, generator: torch.Generator, high: float = 1.0
) -> Tensor:
    """Return each of unit features [N, d] mixed with one of `others` [M, d], its share uniform in
    [low, high]; unit vectors [N, d].

    Stand in for images: these lie nearer to the rest of what the model knows than samples, which
    show nothing but one name."""
    share = (
        torch.empty(len(features), 1).uniform_(low, high, generator=generator).to(features.device)
    )
    partners = others[
        torch.randint(len(others), (len(features),), generator=generator).to(others.device)
    ]
    return F.normalize(share * features + (1 - share) * partners, dim=-1)


def drift(features: Tensor, anchor: Tensor) -> Tensor:
    """Return mean(1 - cos) of features [N, d] to what they should stay at [N, d]."""
    return (1 - F.cosine_similarity(features, anchor, dim=-1)).mean()


@torch.no_grad()
def noisy(x: Tensor, sigma: float, draws: int, generator: torch.Generator) -> Tensor:
    """Return [draws, N, 3, H, W]: x plus fresh noise of deviation sigma, clamped to the range of
    the batch.
    """
    noise = torch.randn((draws, *x.shape), generator=generator).to(x.device)
    return (x + sigma * noise).clamp(x.amin(), x.amax())
