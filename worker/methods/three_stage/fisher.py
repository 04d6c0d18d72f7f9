"""Which layers hold what is to be forgotten and little else: relative Fisher information (arXiv
2506.03117, equation 2).

    R_l = I_l(D_f) / I_l(D_r),    I_l(D) = mean over (x, t) of D and over theta in l of ( d
    cos(v(x), t) / d theta )^2

The equation writes a second derivative. The squared first derivative of each sample (the
diagonal of the empirical Fisher matrix) is taken for it, because only a quantity that is never
negative can be ranked as a ratio."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.func import grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from worker.data_parallel import added_up, own_rows
from worker.methods.engine.adapters import features
from worker.methods.engine.tower import Tower

GRADIENT_ENTRIES = 2**25
"""Float32 entries of per-sample gradients in memory at a time: 128 MB. Larger chunks were slower
on a CPU.
"""


@contextmanager
def batchable_attention() -> Iterator[None]:
    """Let attention be made of operations that `vmap` can batch: the fused kernels have no rule
    for it, or loop.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def fisher_information(
    tower: Tower, names: Sequence[str], inputs: Tensor, start: int, texts: Tensor
) -> Tensor:
    """Return I_l [len(names)] of the named weights, on inputs [N, ...] of segment `start` and their
    texts [N, d].

    Several processes share the samples. In float32: per-sample gradients under autocast are not
    something torch can do."""
    weights = {name: tower.visual.get_parameter(name).detach() for name in names}

    def similarity(weights: dict[str, Tensor], x: Tensor, text: Tensor) -> Tensor:
        return features(tower, weights, x[None], start)[0] @ text

    def squares(x: Tensor, text: Tensor) -> Tensor:
        gradients = grad(similarity)(weights, x, text)
        return torch.stack([gradients[name].square().mean() for name in names])

    chunk = max(1, min(16, GRADIENT_ENTRIES // sum(weight.numel() for weight in weights.values())))
    with batchable_attention():
        own = vmap(squares, chunk_size=chunk)(own_rows(inputs.float()), own_rows(texts))
    return added_up(own.sum(dim=0)) / len(inputs)


def relative_fisher(forget: Tensor, retain: Tensor) -> Tensor:
    """Return R_l = I_l(D_f) / (I_l(D_r) + eps); eps, 1e-12 of the median I_l(D_r), only keeps a
    dead layer from dividing by 0.
    """
    return forget / (retain + 1e-12 * retain.median())
