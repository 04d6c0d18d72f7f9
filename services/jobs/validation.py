"""What the references of a tenant's request stand for: its rows, and the paths that the operator
allows.
"""

from contextlib import suppress

from sqlalchemy.orm import Session

from services.catalog import datasets, models
from services.catalog.references import allowed_path, model_reference
from shared.errors import InvalidRequest
from shared.files.image_archives import ArchiveLimits
from shared.request_rules.references import FoundData, LocalData
from shared.request_rules.resolution import Resolved, given_sets
from shared.request_rules.resolution import resolve as resolve_with
from shared.schemas.model_reference import ModelReference
from shared.schemas.request import ErasureRequest
from shared.schemas.spec import DataSource, ModelSource
from shared.settings import Settings

FORGET_POINTERS = frozenset({"/data/forget", "/data/forget_test"})
EARLIER = "/data/earlier"
"""Where the images to be forgotten are, and those that were: unless their owner has said
otherwise, they go when the job ends.
"""


def read_local(request: ErasureRequest, settings: Settings) -> LocalData:
    """Read the data sets that a request names by a path. Slow, for archives are decoded: hold no
    transaction.
    """
    local = LocalData(ArchiveLimits.of(settings))
    for pointer, name, reference in given_sets(request):
        if not reference.startswith("ds_"):
            with suppress(InvalidRequest):  # it is told of later, together with all other errors
                local.at(allowed_path(reference, settings, pointer), pointer, name)
    return local


def resolve(
    session: Session,
    tenant_id: str,
    request: ErasureRequest,
    settings: Settings,
    local: LocalData | None = None,
) -> Resolved:
    """Check a request against what the tenant has, and resolve it; `local` is what `read_local` has
    read of it.

    Without it, the data sets that are named by a path are read here: then the caller must hold no
    connection yet.

    Raises:
        InvalidRequest: with every error that was found, not just the first.
    """
    local = read_local(request, settings) if local is None else local
    return resolve_with(request, _TenantFinder(session, tenant_id, settings, local))


class _TenantFinder:
    def __init__(
        self, session: Session, tenant_id: str, settings: Settings, local: LocalData
    ) -> None:
        self._session, self._tenant_id, self._settings, self._local = (
            session,
            tenant_id,
            settings,
            local,
        )

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
            raise InvalidRequest.at(
                pointer, f"there is no data set {reference!r}; upload it with POST /datasets"
            )
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
