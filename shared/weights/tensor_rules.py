"""How a tensor of one layout comes from tensors of another: by joining, cutting and transposing,
which change no value.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from shared.weights.tensor_files import Array, NewTensor, Shape, TensorInfo, float32

Read = Callable[[str], Array]


@dataclass(frozen=True, slots=True)
class Rule:
    """Where a tensor comes from."""

    sources: tuple[str, ...] = ()
    """Joined along their first axis; none for a counter that is missing and begins at 0."""
    transposed: bool = False
    part: tuple[int, int] | None = None
    """(i, n): the i-th of n equal parts along the first axis."""
    shape: Shape | None = None
    """What it is reshaped to in the end."""

    @property
    def source(self) -> str | None:
        """The name of the tensor that is taken as it is, None where anything is done to it."""
        plain = (
            len(self.sources) == 1
            and not self.transposed
            and self.part is None
            and self.shape is None
        )
        return self.sources[0] if plain else None

    def info(self, infos: Mapping[str, TensorInfo]) -> TensorInfo:
        """Return what becomes of the sources."""
        if not self.sources:
            return TensorInfo("I64", ())
        first = infos[self.sources[0]]
        if self.shape is not None:
            return replace(first, shape=self.shape)
        shape = first.shape
        if len(self.sources) > 1:
            shape = (sum(infos[name].shape[0] for name in self.sources), *shape[1:])
        if self.part is not None:
            shape = (shape[0] // self.part[1], *shape[1:])
        return replace(first, shape=shape[::-1] if self.transposed else shape)

    def values(self, read: Read) -> Array:
        """Return the tensor."""
        if not self.sources:
            return np.zeros((), np.int64)
        arrays = [read(name) for name in self.sources]
        array = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
        if self.part is not None:
            rows = array.shape[0] // self.part[1]
            array = array[self.part[0] * rows : (self.part[0] + 1) * rows]
        if self.transposed:
            array = array.T
        return array if self.shape is None else array.reshape(self.shape)


Rules = Mapping[str, Rule]


def tensors(
    rules: Rules, infos: Mapping[str, TensorInfo], read: Read, *, full: bool = False
) -> dict[str, NewTensor]:
    """Return the tensors that the rules make, by name, to be written one by one; with `full` in
    float32.
    """

    def made(rule: Rule) -> NewTensor:
        info = rule.info(infos)
        if not (full and info.dtype in ("F64", "F16", "BF16")):
            return NewTensor(info, lambda: rule.values(read))
        return NewTensor(replace(info, dtype="F32"), lambda: float32(rule.values(read), info.dtype))

    return {name: made(rule) for name, rule in rules.items()}
