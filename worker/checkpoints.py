"""Stage checkpoints: after each stage of a method, what another process needs to go on from
there.
"""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import structlog
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from shared.ports.object_storage import ObjectMissing
from shared.schemas.report import StageResult
from worker.clip.checkpoint import plain_tensors
from worker.methods.frame import Erasure
from worker.recording import Steps
from worker.vault import SealBroken, Vault

log = structlog.get_logger()

WEIGHT, STATE = "weight/", "state/"


class Restored(NamedTuple):
    """What a checkpoint brought back."""

    done: int
    """How many stages it saves."""
    stages: list[StageResult]
    """What they cost."""
    steps: Steps
    """What they reported."""


class Checkpoints:
    """The checkpoints of one job, one object per finished stage: the changed weights, the state and
    the notes.

    The state holds features and samples of what is to be forgotten, so they are encrypted with
    the job's key."""

    def __init__(self, vault: Vault, prefix: str) -> None:
        self._vault, self._prefix = vault, prefix

    def save(self, number: int, erasure: Erasure, stages: list[StageResult], steps: Steps) -> None:
        """Save the erasure as it is after stage `number` (from 0), what the stages cost and what
        they reported.
        """
        original = erasure.original.model.state_dict()
        changed = {
            n: t
            for n, t in erasure.clip.model.state_dict().items()
            if not torch.equal(t, original[n])
        }
        tensors = {WEIGHT + n: t for n, t in changed.items()} | {
            STATE + n: t for n, t in erasure.state.items()
        }
        meta = {
            "model": erasure.original.digest,
            "notes": json.dumps(erasure.notes),
            "stages": json.dumps([stage.model_dump(mode="json") for stage in stages]),
            "steps": json.dumps(steps),
        }
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "checkpoint"
            save_file(plain_tensors(tensors), path, metadata=meta)
            self._vault.put(f"{self._prefix}/{number}.safetensors", path)

    def restore(self, erasure: Erasure) -> Restored:
        """Bring the erasure to its last checkpoint, and return what else that holds."""
        for name in reversed(self._vault.names(self._prefix)):
            try:
                with self._vault.opened(name) as path:
                    meta = self._read(path, erasure)
                rows = json.loads(meta["stages"])
                stages = [
                    StageResult.model_validate(row | {"resumed": True}, extra="ignore")
                    for row in rows
                ]
                done = int(name.rsplit("/", 1)[1].split(".")[0]) + 1
                return Restored(done, stages, json.loads(meta["steps"]))
            except (SafetensorError, SealBroken, KeyError, ValueError) as error:
                log.warning("checkpoint.unreadable", key=name, error=str(error))
        return Restored(0, [], {})

    @staticmethod
    def _read(path: Path, erasure: Erasure) -> dict[str, Any]:
        with safe_open(path, framework="pt") as file:
            meta: dict[str, Any] = file.metadata()
            if meta["model"] != erasure.original.digest:
                raise ValueError("it belongs to another model")
            if "steps" not in meta:
                raise ValueError("it was made by an earlier version")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        weights = {n.removeprefix(WEIGHT): t for n, t in tensors.items() if n.startswith(WEIGHT)}
        erasure.clip.model.load_state_dict(weights, strict=False)
        erasure.state = {
            n.removeprefix(STATE): t for n, t in tensors.items() if n.startswith(STATE)
        }
        erasure.notes = json.loads(meta["notes"])
        return meta


class StoredTensors:
    """A `TensorStore` in the storage: what an attempt made, for the later ones."""

    def __init__(self, vault: Vault, prefix: str) -> None:
        self._vault, self._prefix = vault, f"{prefix}/tensors"

    def load(self, key: str) -> dict[str, torch.Tensor] | None:
        """Return what was saved under `key`, or None."""
        try:
            with (
                self._vault.opened(self._name(key)) as path,
                safe_open(path, framework="pt") as file,
            ):
                return {n: file.get_tensor(n) for n in file.keys()}  # noqa: SIM118 - not a mapping
        except (ObjectMissing, SealBroken, SafetensorError):
            return None

    def save(self, key: str, tensors: Mapping[str, torch.Tensor]) -> None:
        """Keep `tensors` under `key`."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "tensors"
            save_file(plain_tensors(tensors), path)
            self._vault.put(self._name(key), path)

    def _name(self, key: str) -> str:
        return f"{self._prefix}/{key}.safetensors"
