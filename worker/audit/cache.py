"""Predictions that were made before: the same weights on the same images under the same labels need no second look."""

import hashlib
import json
from collections.abc import Sequence

from shared.storage import ObjectMissing, Storage


class EvaluationCache:
    """Predictions by (model digest, data set digest, labels, templates), as JSON.

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

    def load(self, model: str, dataset: str, labels: Sequence[str], templates: Sequence[str]) -> list[int] | None:
        """Return the index of the predicted label of every image, or None."""
        try:
            predictions: list[int] = json.loads(self._storage.get(self._key(model, dataset, labels, templates)))
        except ObjectMissing:
            return None
        return predictions

    def save(
        self, model: str, dataset: str, labels: Sequence[str], templates: Sequence[str], predictions: Sequence[int]
    ) -> None:
        """Keep predictions."""
        self._storage.put(self._key(model, dataset, labels, templates), json.dumps(list(predictions)).encode())

    def _key(self, model: str, dataset: str, labels: Sequence[str], templates: Sequence[str]) -> str:
        folder = f"{self._tenant}/evaluations/{dataset}" if dataset in self._lasting else f"{self._job}/evaluations"
        name = hashlib.sha256(json.dumps((model, dataset, labels, templates)).encode()).hexdigest()
        return f"{folder}/{name}.json"
