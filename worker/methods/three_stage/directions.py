"""Within a chosen layer, what may change: the directions of its input that forget images use and
other images do not.

    C(D) = mean over x of D of G^T G [in, in],    G = d (u . v(x)) / dW [out, in]
    C(D_f) a = mu (C(D_r) + lambda tr(C(D_r)) / in  I) a,    A = the a of the r largest mu,
    orthonormal;  W = W_0 + B A

This is the ratio that ranks the layers (`fisher`), taken once more inside a layer: C is the input
side of its Fisher information. For forget images u is their text less that of the nearest rival;
for retain and proxy images a random vector, so that C(D_r) tells how far any feature moves. B alone
is trained. A random A lets every image feel the edit, and what nobody gave an example of, other
data sets above all, pays for it.

Sources: an adapter's A out of the covariance of what must stay, Yang et al. 2024 (arXiv
2406.05223); A left as it is, Zhang et al. 2023 (arXiv 2308.03303); to unlearn where retained
data has no energy, Hoang et al. 2023 (arXiv 2312.04095). The ratio is ours."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import grad, vmap

from shared.schemas.methods import ThreeStageParameters
from worker.data_parallel import added_up, own_rows
from worker.methods.engine.adapters import Adapter, adapt, features
from worker.methods.engine.prepared_data import Images, Material
from worker.methods.engine.tower import Tower
from worker.methods.frame import Erasure
from worker.methods.three_stage.fisher import GRADIENT_ENTRIES, batchable_attention

FORGET_IMAGES, RETAIN_IMAGES, PROXY_IMAGES = 48, 96, 48
RIDGE = 0.03
"""Lambda. Smaller ones trust the few images that were counted, larger ones let more of the
others feel the edit.
"""
ITERATIONS = 4
"""Of the subspace iteration."""


class Probe(NamedTuple):
    """Images and the vectors on which their features are read."""

    inputs: Tensor
    """[N, ...] of one segment."""
    readings: Tensor
    """[N, d], u."""


def adapter_for(
    erasure: Erasure,
    material: Material,
    parameters: ThreeStageParameters,
    generator: torch.Generator,
) -> Adapter:
    """Return an adapter of the edited weights, as the parameters want it, that starts where they
    are now.
    """
    found = None
    if parameters.directions == "relative_fisher" and parameters.lora_rank is not None:
        found = relative_directions(erasure, material, parameters.rank)
    return adapt(
        material.tower,
        material.edited,
        rank=parameters.lora_rank,
        generator=generator,
        directions=found,
    )


def relative_directions(erasure: Erasure, material: Material, rank: int) -> dict[str, Tensor]:
    """Return A [r, in] of each edited weight, r = `rank` or less. Found once, then kept in
    `Erasure.state`.
    """
    keys = {name: f"directions.{name}" for name in material.edited}
    if not all(key in erasure.state for key in keys.values()):
        generator = erasure.generator(salt=12)
        forget, retain = _probes(erasure, material, generator)
        wanted = input_fisher(material.original, list(keys), forget, material.start)
        spared = input_fisher(material.original, list(keys), retain, material.start)
        for name, key in keys.items():
            erasure.state[key] = leading(wanted[name], spared[name], rank, generator)
    return {name: erasure.state[key].to(erasure.clip.device) for name, key in keys.items()}


def input_fisher(tower: Tower, names: Sequence[str], probe: Probe, start: int) -> dict[str, Tensor]:
    """Return C [in, in] of each named weight, seen as a matrix [first dimension, all others]. In
    float32.

    Several processes share the samples.
    """
    weights = {name: tower.visual.get_parameter(name).detach() for name in names}

    def reading(weights: Mapping[str, Tensor], x: Tensor, u: Tensor) -> Tensor:
        return features(tower, weights, x[None], start)[0] @ u

    sums = {
        name: torch.zeros(2 * (weight[0].numel(),), device=weight.device)
        for name, weight in weights.items()
    }
    chunk = max(1, min(16, GRADIENT_ENTRIES // sum(weight.numel() for weight in weights.values())))
    with batchable_attention():
        parts = (own_rows(values).split(chunk) for values in (probe.inputs, probe.readings))
        for inputs, readings in zip(*parts, strict=True):
            gradients = vmap(grad(reading), in_dims=(None, 0, 0))(weights, inputs.float(), readings)
            for name, total in sums.items():
                rows = gradients[name].reshape(-1, len(total))
                total += rows.T @ rows
    return {name: added_up(total) / len(probe.inputs) for name, total in sums.items()}


def leading(wanted: Tensor, spared: Tensor, rank: int, generator: torch.Generator) -> Tensor:
    """Return orthonormal rows [r, in] that span the leading generalised eigenvectors of C(D_f) =
    `wanted`, C(D_r) = `spared`.
    """
    size = len(spared)
    floor = RIDGE * spared.trace() / size
    if not floor > 0:  # a dead layer: no image tells one direction from another
        floor = torch.ones_like(floor)
    factor = torch.linalg.cholesky(spared + floor * torch.eye(size, device=spared.device))
    basis = torch.randn(size, min(rank, size), generator=generator).to(spared.device)
    for _ in range(ITERATIONS):
        basis = torch.linalg.qr(torch.cholesky_solve(wanted @ basis, factor)).Q
    return basis.T.contiguous()


def _probes(
    erasure: Erasure, material: Material, generator: torch.Generator
) -> tuple[Probe, Probe]:
    forget = _some(material.forget, FORGET_IMAGES, generator)
    kept = [index for index in range(len(erasure.labels)) if index not in erasure.forget_labels]
    rivals = material.classifier[kept]
    nearest = rivals[(forget.original @ rivals.T).argmax(dim=1)]
    texts = material.classifier[forget.labels]
    retain = [
        _some(material.retain, RETAIN_IMAGES, generator),
        _some(material.proxy, PROXY_IMAGES, generator),
    ]
    retain += [_some(material.earlier, PROXY_IMAGES, generator)] if material.earlier else []
    inputs = torch.cat([images.inputs for images in retain])
    width = texts.shape[1]
    readings = torch.randn(len(inputs), width, generator=generator).to(inputs.device) / width**0.5
    return Probe(forget.inputs, texts - nearest), Probe(inputs, readings)


def _some(images: Images, count: int, generator: torch.Generator) -> Images:
    return images.where(torch.randperm(len(images.labels), generator=generator)[:count])
