"""What the references of a tenant's request stand for: its rows, and the paths that the operator allows."""

from sqlalchemy.orm import Session

from services import datasets, models
from services.references import allowed_path, model_reference
from shared.archives import ArchiveLimits
from shared.errors import InvalidRequest
from shared.references import FoundData, LocalData
from shared.resolution import Resolved
from shared.resolution import resolve as resolve_with
from shared.schemas.model_reference import ModelReference
from shared.schemas.request import ErasureRequest
from shared.schemas.spec import DataSource, ModelSource
from shared.settings import Settings

FORGET_POINTERS = frozenset({"/data/forget", "/data/forget_test"})
EARLIER = "/data/earlier"
"""Where the images to be forgotten are, and those that were: unless their owner has said otherwise, they go when the job ends."""


def resolve(session: Session, tenant_id: str, request: ErasureRequest, settings: Settings) -> Resolved:
    """Check a request against what the tenant has, and resolve it.

    Raises:
        InvalidRequest: with every error that was found, not just the first.
    """
    return resolve_with(request, _TenantFinder(session, tenant_id, settings))


class _TenantFinder:
    def __init__(self, session: Session, tenant_id: str, settings: Settings) -> None:
        self._session, self._tenant_id, self._settings = session, tenant_id, settings
        self._local = LocalData(ArchiveLimits.of(settings))

    def model(self, pointer: str, reference: ModelReference) -> ModelSource:
        if reference.id is None:
            return ModelSource(reference=model_reference(reference, self._settings, pointer))
        source = models.source(self._session, self._tenant_id, reference.id)
        if source is not None:
            return source
        detail = f"there is no model {reference.id!r}; GET /models lists what there is"
        raise InvalidRequest.at(f"{pointer}/id", detail)

    def data(self, pointer: str, name: str, reference: str) -> FoundData:
        if not reference.startswith("ds_"):
            return self._local.at(allowed_path(reference, self._settings, pointer), pointer, name)
        row = datasets.find_for_use(self._session, self._tenant_id, reference)
        if row is None:
            raise InvalidRequest.at(pointer, f"there is no data set {reference!r}; upload it with POST /datasets")
        forgotten = pointer in FORGET_POINTERS or pointer.startswith(EARLIER)
        purged = forgotten if row.purge_after_job is None else row.purge_after_job
        source = DataSource(
            name=name,
            uri=f"storage:{row.key}",
            id=row.id,
            digest=row.digest,
            purged=purged,
            skip_invalid=datasets.has_skipped(row),
        )
        return FoundData(source, row.classes)
