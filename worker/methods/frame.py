"""What a method gets and what it must do.

A method is a tuple of stages, each a function of one `Erasure`. It edits `erasure.clip.model` in
place and leaves in `state` what a later stage needs. The frame around it (`worker/pipeline.py`)
owns the order, the checkpoints, the clock and the memory meter."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, Self, TypeVar

import torch
from torch import Tensor

from shared.schemas.base import Schema
from shared.schemas.methods import MethodParameters
from shared.schemas.request import ErasureRequest, Thresholds
from shared.states import Stage
from worker.clip import Clip
from worker.data.images import ImageSet
from worker.ports import Progress

P = TypeVar("P", bound=Schema)


@dataclass(frozen=True, slots=True)
class MethodData:
    """The images a method may learn from. None of them is used to measure the result."""

    forget: ImageSet | None = None
    retain: ImageSet | None = None
    calibration_forget: ImageSet | None = None
    calibration_retain: ImageSet | None = None
    proxy: ImageSet | None = None
    earlier: ImageSet | None = None
    """What earlier erasures took away from this model, or one that it came from."""


class TensorStore(Protocol):
    """Keeps named tensors between jobs (sample banks, statistics). Keys are digests of
    everything that the content depends on.
    """

    def load(self, key: str) -> dict[str, Tensor] | None:
        """Return what was saved under `key`, or None."""

    def save(self, key: str, tensors: Mapping[str, Tensor]) -> None:
        """Keep `tensors` under `key`."""


class MemoryStore:
    """A `TensorStore` that lasts as long as the process."""

    def __init__(self) -> None:
        self._kept: dict[str, dict[str, Tensor]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def load(self, key: str) -> dict[str, Tensor] | None:
        """Return what was saved under `key`, or None."""
        return self._kept.get(key)

    def save(self, key: str, tensors: Mapping[str, Tensor]) -> None:
        """Keep `tensors` under `key`."""
        self._kept[key] = dict(tensors)


def kept(
    store: TensorStore, name: str, parts: Mapping[str, Any], make: Callable[[], Tensor]
) -> tuple[Tensor, bool]:
    """Return a tensor from the store, made and saved there if it is missing, and whether it was
    there.

    Args:
        store: where to look.
        name: what the tensor is called in the object.
        parts: everything that it depends on, as JSON: its digest is the key.
        make: returns it.
    """
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    stored = store.load(key)
    if stored is not None:
        return stored[name], True
    tensor = make()
    store.save(key, {name: tensor})
    return tensor, False


@dataclass(slots=True)
class Erasure:
    """One erasure in progress."""

    clip: Clip
    """The model that is edited, in place, in eval mode."""
    original: Clip
    """Its frozen twin."""
    request: ErasureRequest
    parameters: MethodParameters
    thresholds: Thresholds
    labels: tuple[str, ...]
    """Every label of the target's set, resolved (for a subgroup: from the request or the data)."""
    data: MethodData
    store: TensorStore
    progress: Progress
    seed: int
    stage: Stage = Stage.PREPARING
    state: dict[str, Tensor] = field(default_factory=dict)
    """What later stages and the audit need; saved with every checkpoint. `held_out_samples` [N,
    3, H, W] (normalised pixels) and `held_out_labels` [N] (indices into `labels`), where set,
    are the synthetic samples that the audit measures on."""
    notes: dict[str, Any] = field(default_factory=dict)
    """JSON for the report's `method` entry."""

    @classmethod
    def of(
        cls,
        request: ErasureRequest,
        clip: Clip,
        *,
        thresholds: Thresholds,
        labels: tuple[str, ...],
        data: MethodData,
        store: TensorStore,
        progress: Progress,
    ) -> Self:
        """Return the erasure that a request asks for, of a model that is edited from now on; its
        twin stays as it was.
        """
        return cls(
            clip=clip,
            original=clip.frozen_twin(),
            request=request,
            parameters=request.method.parsed(),
            thresholds=thresholds,
            labels=labels,
            data=data,
            store=store,
            progress=progress,
            seed=request.seed,
        )

    @property
    def forget_labels(self) -> list[int]:
        """Indices into `labels` of what is to be forgotten (for a subgroup: of its class)."""
        return [self.labels.index(name) for name in self.request.target.names()]

    def parameters_as(self, kind: type[P]) -> P:
        """Return the parameters as those of a method.

        Raises:
            TypeError: they are another method's.
        """
        if not isinstance(self.parameters, kind):
            raise TypeError(f"{kind.__name__} are needed, not {type(self.parameters).__name__}")
        return self.parameters

    def step(self, step: int, total: int | None = None, **metrics: float) -> None:
        """Report a step of the current stage."""
        self.progress.step(self.stage, step, total, metrics)

    def generator(self, salt: int = 0) -> torch.Generator:
        """Return a CPU generator that depends on the request's seed and `salt` alone."""
        return torch.Generator().manual_seed(self.seed * 1_000_003 + salt)

    @contextmanager
    def precision(self) -> Iterator[None]:
        """Run the block in bfloat16 autocast where the device is fast at it, else in float32."""
        with torch.autocast(
            self.clip.device.type, dtype=torch.bfloat16, enabled=bf16_is_fast(self.clip.device)
        ):
            yield


class MethodStage(NamedTuple):
    """One stage of a method."""

    stage: Stage
    run: Callable[[Erasure], None]


def bf16_is_fast(device: torch.device) -> bool:
    """True on GPUs that support bfloat16, and on CPUs with AMX or AVX-512 BF16 instructions."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    capabilities = torch.backends.cpu.get_cpu_capability()
    return "AVX512" in capabilities and bool(
        torch.cpu._is_avx512_bf16_supported()
    )  # the only way to ask
