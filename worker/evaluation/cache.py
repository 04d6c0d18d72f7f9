"""Image features that were computed before: the same weights on the same images need no second
look.

Features of a person's images are personal data. They lie where the images themselves do, and are
encrypted: below the job where the request gave the images to be forgotten, so that they go when
the job ends; below the tenant, under the data set's own key, where the images are an evaluation
set."""

import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from shared.files.decoding import READING
from shared.ports.object_storage import ObjectMissing, Storage
from worker.vault import SealBroken, Vault


class FeatureCache:
    """Named tensors by (model digest, data set digest), one safetensors object each.

    Those of an uploaded data set that outlives the job are kept for the tenant's later jobs,
    filed under the data set and encrypted with its key; all others, those of the images to be
    forgotten among them, lie with the job, under its key."""

    def __init__(
        self, storage: Storage, *, tenant: str, job: str, job_key: bytes | None = None
    ) -> None:
        """Keep below these two prefixes."""
        self._storage, self._tenant, self._job = storage, tenant, job
        self._vault = Vault(storage, job_key)
        self._lasting: dict[str, tuple[str, Vault]] = {}

    def outlives_the_job(self, dataset: str, dataset_id: str, key: bytes) -> None:
        """Say that a data set, known by its digest, stays when the job has ended, and under
        which key.
        """
        self._lasting[dataset] = (dataset_id, Vault(self._storage, key))

    def load(self, model: str, dataset: str) -> dict[str, Tensor] | None:
        """Return what was saved for these weights and images, or None."""
        vault, name = self._place(model, dataset)
        try:
            with vault.opened(name) as path:
                return load_file(path)
        except (ObjectMissing, SealBroken, SafetensorError):
            return None

    def save(self, model: str, dataset: str, tensors: Mapping[str, Tensor]) -> None:
        """Keep the features of images."""
        vault, name = self._place(model, dataset)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "features"
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
            vault.put(name, path)

    def _place(self, model: str, dataset: str) -> tuple[Vault, str]:
        """Return where features are. An archive that was uploaded twice has two keys, so its id
        is part of the name.
        """
        if dataset in self._lasting:
            dataset_id, vault = self._lasting[dataset]
            digest = hashlib.sha256(
                f"{model}:{dataset}:{READING}:{dataset_id}".encode()
            ).hexdigest()
            return vault, f"{self._tenant}/evaluations/{dataset}/{digest}.safetensors"
        digest = hashlib.sha256(f"{model}:{dataset}:{READING}".encode()).hexdigest()
        return self._vault, f"{self._job}/evaluations/{digest}.safetensors"
