"""Predictions that were made before: the same weights on the same images under the same labels need no second look."""

import hashlib
import json
from collections.abc import Sequence

from shared.storage import ObjectMissing, Storage


class EvaluationCache:
    """Predictions by (model digest, data set digest, labels, templates), as JSON in the tenant's part of the storage."""

    def __init__(self, storage: Storage, prefix: str) -> None:
        self._storage, self._prefix = storage, f"{prefix}/evaluations"

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

    def _key(self, *parts: str | Sequence[str]) -> str:
        return f"{self._prefix}/{hashlib.sha256(json.dumps(parts).encode()).hexdigest()}.json"
