"""Distribution alignment: move retain images to where the original model has seen its pre-training
data (arXiv 2506.03117).

    min over delta_i, |delta_i| <= 0.25   L_a = sum_l || mu_l(x + delta) - mu_l* ||_2 + || sigma_l(x
    + delta) - sigma_l* ||_2

mu_l, sigma_l: mean and standard deviation of the inputs of layer l in the original model, over a
batch and all places, for each channel. `batch_norm` takes mu_l*, sigma_l* from the running
statistics of its BatchNorm layers, a record of the pre-training data. A vision transformer has
none: `tokens` takes those of its residual blocks on the proxy images."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from shared.schemas.methods import ThreeStageParameters
from worker.methods.engine.prepared_data import Images, Material
from worker.methods.engine.tower import Tower, batch_norms, residual_blocks
from worker.methods.frame import Erasure
from worker.methods.three_stage.losses import statistics_loss

Statistics = list[tuple[Tensor, Tensor]]

STEPS, LEARNING_RATE, LARGEST_CHANGE = 8, 0.02, 0.25
"""Of Adam on delta, in normalised pixels; a change of 0.25 is about 16 of 255 grey values."""
BATCH = 48


def aligned_retain(
    erasure: Erasure, material: Material, parameters: ThreeStageParameters
) -> Images:
    """Return the retain images, aligned if the parameters say so and the model has what it
    takes.
    """
    reference = _reference(erasure, material, parameters)
    if reference is None:
        return material.retain
    layers, stored = reference
    pixels, labels = material.pixels("retain")
    aligned, losses = [], []
    parts = pixels.split(BATCH)
    for number, part in enumerate(parts):
        moved, loss = align(
            erasure, material.original, part.to(erasure.clip.device), layers, stored
        )
        aligned.append(moved.cpu())
        losses.append(loss)
        erasure.step(number + 1, len(parts), alignment_loss=loss)
    erasure.notes["alignment"] = {"mode": parameters.alignment, "loss": sum(losses) / len(losses)}
    return material.encode(torch.cat(aligned), labels)


def align(
    erasure: Erasure, tower: Tower, pixels: Tensor, layers: list[nn.Module], stored: Statistics
) -> tuple[Tensor, float]:
    """Return `pixels` + delta [N, 3, H, W] after 8 steps of Adam on L_a, and the last L_a."""
    delta = torch.zeros_like(pixels, requires_grad=True)
    optimizer = torch.optim.Adam([delta], lr=LEARNING_RATE)
    for _ in range(STEPS):
        with recorded_statistics(layers) as measured, erasure.precision():
            tower((pixels + delta).contiguous(memory_format=torch.channels_last))
        loss = statistics_loss(measured, stored)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            delta.clamp_(-LARGEST_CHANGE, LARGEST_CHANGE)
    return (pixels + delta).detach(), loss.item()


def _reference(
    erasure: Erasure, material: Material, parameters: ThreeStageParameters
) -> tuple[list[nn.Module], Statistics] | None:
    """Return the layers whose inputs are matched and what their statistics should be; None for
    no alignment.
    """
    tower = material.original
    if parameters.alignment == "batch_norm" and (norms := batch_norms(tower.visual)):
        return list(norms), [running_statistics(norm) for norm in norms]
    if parameters.alignment == "tokens" and (blocks := residual_blocks(tower.visual)):
        pixels = material.proxy_pixels().to(erasure.clip.device)
        with torch.no_grad(), recorded_statistics(blocks) as measured, erasure.precision():
            tower(pixels)
        return blocks, list(measured)
    return None


def running_statistics(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation [channels] that a BatchNorm layer stored in
    pre-training.
    """
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None and variance is not None  # noqa: S101  (batch_norms picks those that track them)
    return mean, variance.sqrt()


@contextmanager
def recorded_statistics(layers: list[nn.Module]) -> Iterator[Statistics]:
    """Collect, for each call of each layer, mean and standard deviation [channels] of its input."""
    measured: Statistics = []

    def record(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0].float()
        channels_first = x.ndim == 4
        places = (0, 2, 3) if channels_first else (0, 1)
        measured.append((x.mean(dim=places), x.std(dim=places, correction=0)))

    handles = [layer.register_forward_pre_hook(record) for layer in layers]
    try:
        yield measured
    finally:
        for handle in handles:
            handle.remove()
