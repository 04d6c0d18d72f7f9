"""Image features that were computed before: the same weights on the same images need no second look.

Features of a person's images are personal data. They lie where the images themselves do: below the job where the request
gave the images to be forgotten, so that they go when the job ends; below the tenant where the images are an evaluation set.
"""

import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from shared.decoding import READING
from shared.storage import ObjectMissing, Storage


class FeatureCache:
    """Named tensors by (model digest, data set digest), one safetensors object each.

    Those of a data set that outlives the job are kept for the tenant's later jobs, filed under the data set; all others,
    those of the images to be forgotten among them, lie with the job and go with it.
    """

    def __init__(self, storage: Storage, *, tenant: str, job: str) -> None:
        """Keep below these two prefixes."""
        self._storage, self._tenant, self._job = storage, tenant, job
        self._lasting: set[str] = set()

    def outlives_the_job(self, dataset: str) -> None:
        """Say that a data set, known by its digest, stays when the job has ended."""
        self._lasting.add(dataset)

    def load(self, model: str, dataset: str) -> dict[str, Tensor] | None:
        """Return what was saved for these weights and images, or None."""
        with tempfile.TemporaryDirectory() as folder:
            try:
                path = self._storage.download(self._key(model, dataset), Path(folder) / "features")
                return load_file(path)
            except (ObjectMissing, SafetensorError):
                return None

    def save(self, model: str, dataset: str, tensors: Mapping[str, Tensor]) -> None:
        """Keep the features of images."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "features"
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
            self._storage.put(self._key(model, dataset), path)

    def _key(self, model: str, dataset: str) -> str:
        folder = f"{self._tenant}/evaluations/{dataset}" if dataset in self._lasting else f"{self._job}/evaluations"
        return f"{folder}/{hashlib.sha256(f'{model}:{dataset}:{READING}'.encode()).hexdigest()}.safetensors"
