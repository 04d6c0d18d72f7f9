"""Everything about a request that can be checked before its job exists, and what its references stand for."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.orm import Session

from services import datasets, models
from services.references import allowed_path, model_reference
from shared.archives import ArchiveLimits
from shared.classes import class_errors, classes_at
from shared.errors import FieldError, InvalidRequest
from shared.needs import data_errors, reference_errors
from shared.schemas.model_reference import ModelReference
from shared.schemas.request import ErasureRequest, Thresholds
from shared.schemas.spec import LISTS, DataSource, DataSources, ModelSource
from shared.schemas.thresholds import resolve_thresholds
from shared.settings import Settings

ROLES = ("forget", "retain", "calibration", "proxy", "forget_test", "retain_test")
FORGET_POINTERS = frozenset({"/data/forget", "/data/forget_test"})
EARLIER = "/data/earlier"
"""Where the images to be forgotten are, and those that were: unless their owner has said otherwise, they go when the job ends."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """A request whose references were all found."""

    model: ModelSource
    data: DataSources
    thresholds: Thresholds
    reference: ModelSource | None
    """What `audit.reference` names."""


def resolve(session: Session, tenant_id: str, request: ErasureRequest, settings: Settings) -> Resolved:
    """Check a request against what the tenant has, and resolve it.

    Raises:
        InvalidRequest: with every error that was found, not just the first.
    """
    finder = _Finder(session, tenant_id, settings)
    model = finder.model("/model", request.model)
    reference = finder.model("/audit/reference", request.audit.reference) if request.audit.reference else None
    roles = {role: finder.data(f"/data/{role}", role, getattr(request.data, role)) for role in ROLES}
    lists = {
        role: [
            finder.data(f"/data/{role}/{number}/dataset", entry.name, entry.dataset)
            for number, entry in enumerate(getattr(request.data, role))
        ]
        for role in LISTS
    }
    errors = finder.errors + data_errors(request) + class_errors(request, finder.classes)
    errors += reference_errors(model, reference) if model else []
    if errors or model is None:
        raise InvalidRequest(errors)
    known = {
        entry.name: finder.classes[f"/data/evaluation/{number}/dataset"]
        for number, entry in enumerate(request.data.evaluation)
    }
    thresholds = resolve_thresholds(request, known)
    sources = DataSources(**roles, **{role: tuple(s for s in found if s) for role, found in lists.items()})
    return Resolved(model, sources, thresholds, reference)


class _Finder:
    """Finds what references stand for; what is wrong with them comes together in `errors`."""

    def __init__(self, session: Session, tenant_id: str, settings: Settings) -> None:
        self._session, self._tenant_id, self._settings = session, tenant_id, settings
        self.errors: list[FieldError] = []
        self.classes: dict[str, set[str]] = {}
        """Pointer -> the classes of the data set there."""

    def model(self, pointer: str, reference: ModelReference) -> ModelSource | None:
        """Return a model's source, None where there is an error."""
        with self._collected():
            if reference.id is None:
                return ModelSource(reference=model_reference(reference, self._settings, pointer))
            source = models.source(self._session, self._tenant_id, reference.id)
            if source is not None:
                return source
            detail = f"there is no model {reference.id!r}; GET /models lists what there is"
            raise InvalidRequest.at(f"{pointer}/id", detail)
        return None

    def data(self, pointer: str, name: str, reference: str | None) -> DataSource | None:
        """Return a data set's source, None where there is none or an error."""
        with self._collected():
            if reference is None:
                return None
            if not reference.startswith("ds_"):
                path = allowed_path(reference, self._settings, pointer)
                self.classes[pointer] = self._classes_at(path, pointer)
                return DataSource(name=name, uri=str(path))
            row = datasets.find_for_use(self._session, self._tenant_id, reference)
            if row is not None:
                self.classes[pointer] = set(row.classes)
                forgotten = pointer in FORGET_POINTERS or pointer.startswith(EARLIER)
                purged = forgotten if row.purge_after_job is None else row.purge_after_job
                return DataSource(
                    name=name,
                    uri=f"storage:{row.key}",
                    id=row.id,
                    digest=row.digest,
                    purged=purged,
                    skip_invalid=datasets.has_skipped(row),
                )
            raise InvalidRequest.at(pointer, f"there is no data set {reference!r}; upload it with POST /datasets")
        return None

    def _classes_at(self, path: Path, pointer: str) -> set[str]:
        try:
            return classes_at(path, ArchiveLimits.of(self._settings))
        except InvalidRequest as error:
            raise error.under(pointer) from error

    @contextmanager
    def _collected(self) -> Iterator[None]:
        try:
            yield
        except InvalidRequest as error:
            self.errors += error.errors
