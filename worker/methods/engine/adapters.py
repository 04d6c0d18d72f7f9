"""What of a layer may move: a low-rank correction, or all of it.

LoRA (Hu et al. 2021, section 4.1):  W = W_0 + (alpha / r) B A,  A [r, in] ~ N(0, 1/in),  B [out, r]
= 0. With A out of `directions`, A stays as it is and B alone is trained.

The weights are handed to the tower by `torch.func.functional_call`, so that every kind of weight
(linear, convolution, the packed in-projection of attention, the `proj` parameter) is treated
alike: as a matrix [first dimension, all others]. A merge is a copy."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from worker.data_parallel import encoded_together
from worker.methods.engine.tower import Tower


class Adapter(nn.Module):
    """Trainable stand-ins for some weights of a tower, by their names in
    `visual.named_parameters`.
    """

    def weights(self) -> dict[str, Tensor]:
        """Return the current value of each adapted weight. Differentiable."""
        raise NotImplementedError


class Directed(Adapter):
    """W_0 + B A with an A that is given and stays."""

    def __init__(self, frozen: Mapping[str, Tensor], directions: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.frozen = {name: weight.detach().clone() for name, weight in frozen.items()}
        self.directions = dict(directions)
        self.up = nn.ParameterList(
            torch.zeros(len(weight), len(self.directions[name]), device=weight.device)
            for name, weight in self.frozen.items()
        )

    def weights(self) -> dict[str, Tensor]:
        """Return W_0 + B A for each weight."""
        factors = zip(self.frozen.items(), self.up, strict=True)
        return {
            name: weight + (up @ self.directions[name]).view_as(weight)
            for (name, weight), up in factors
        }


class LowRank(Directed):
    """LoRA with alpha = r, i.e. without a scale of its own: Adam's step size plays that part. A
    is drawn, and trained too.
    """

    def __init__(self, frozen: Mapping[str, Tensor], rank: int, generator: torch.Generator) -> None:
        super().__init__(
            frozen, {name: nn.Parameter(_drawn(w, rank, generator)) for name, w in frozen.items()}
        )
        self.down = nn.ParameterList(self.directions.values())


def _drawn(weight: Tensor, rank: int, generator: torch.Generator) -> Tensor:
    rows, columns = weight.shape[0], weight[0].numel()
    down = torch.randn(min(rank, rows, columns), columns, generator=generator)
    return (down / math.sqrt(columns)).to(weight.device)


class Full(Adapter):
    """Every entry of the weights may move."""

    def __init__(self, frozen: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.names = list(frozen)
        self.values = nn.ParameterList(weight.detach().clone() for weight in frozen.values())

    def weights(self) -> dict[str, Tensor]:
        """Return the weights themselves."""
        return dict(zip(self.names, self.values, strict=True))


def adapt(
    tower: Tower,
    names: Sequence[str],
    *,
    rank: int | None,
    generator: torch.Generator,
    directions: Mapping[str, Tensor] | None = None,
) -> Adapter:
    """Return an adapter of the named weights that starts where they are.

    `rank` None trains them in full; `directions` [r, in] of each weight, where given, are the
    only ones that change."""
    frozen = {name: tower.visual.get_parameter(name) for name in names}
    if rank is None:
        return Full(frozen)
    return LowRank(frozen, rank, generator) if directions is None else Directed(frozen, directions)


def shared_features(tower: Tower, weights: Mapping[str, Tensor], x: Tensor, start: int) -> Tensor:
    """Return what `features` does; several processes share the work, and each has the gradient
    of its own images.
    """
    return encoded_together(lambda own: features(tower, weights, own, start), x)


def features(tower: Tower, weights: Mapping[str, Tensor], x: Tensor, start: int) -> Tensor:
    """Return unit features [N, d] of inputs `x` of segment `start`, with `weights` in place of
    the tower's own.
    """
    replaced = {f"visual.{name}": weight for name, weight in weights.items()}
    result: Tensor = functional_call(tower, replaced, (x, start))
    return result


@torch.no_grad()
def merge(tower: Tower, weights: Mapping[str, Tensor]) -> None:
    """Write `weights` into the tower, in place: from here on it needs no adapter."""
    for name, weight in weights.items():
        tower.visual.get_parameter(name).copy_(weight)
