"""Erasures as the pipeline sets them up, for what is tested below it."""

from typing import Any

from shared.schemas.request import ErasureRequest, Thresholds
from worker.clip import Clip
from worker.methods.frame import Erasure, MemoryStore, MethodData, TensorStore
from worker.ports import Silent


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
    return Erasure.of(
        request,
        clip.frozen_twin(),
        thresholds=Thresholds(max_synthetic_accuracy=0.05),
        labels=request.target.labels,
        data=MethodData(),
        store=MemoryStore() if store is None else store,
        progress=Silent(),
    )
