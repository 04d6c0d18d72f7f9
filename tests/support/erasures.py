"""Erasures as the pipeline sets them up, for what is tested below it."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from shared.schemas.request import ErasureRequest, Thresholds
from worker.clip import Clip
from worker.methods.frame import Erasure, MethodData, TensorStore
from worker.ports import Silent


class KeptTensors:
    """A `TensorStore` in memory."""

    def __init__(self) -> None:
        self._kept: dict[str, dict[str, Tensor]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def load(self, key: str) -> dict[str, Tensor] | None:
        """Return what was saved."""
        return self._kept.get(key)

    def save(self, key: str, tensors: Mapping[str, Tensor]) -> None:
        """Keep it."""
        self._kept[key] = dict(tensors)


def names_only(
    clip: Clip,
    target: dict[str, Any],
    *,
    parameters: dict[str, Any] | None = None,
    store: TensorStore | None = None,
    seed: int = 0,
) -> Erasure:
    """Return an erasure of a class by the synthetic method, no image given."""
    request = ErasureRequest.model_validate(
        {
            "model": {"id": "model"},
            "target": {"type": "class"} | target,
            "method": {"name": "synthetic", "parameters": parameters or {}},
            "seed": seed,
        }
    )
    return Erasure(
        clip=clip.frozen_twin(),
        original=clip,
        request=request,
        parameters=request.method.parsed(),
        thresholds=Thresholds(max_synthetic_accuracy=0.05),
        labels=request.target.labels,
        data=MethodData(),
        store=KeptTensors() if store is None else store,
        progress=Silent(),
        seed=seed,
    )
