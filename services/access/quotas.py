"""What one tenant may ask of the service: requests in a time, jobs at once, what it stores,
uploads at once.
"""

from dataclasses import dataclass

from sqlalchemy import BindParameter, bindparam, case, func, literal, select, union_all
from sqlalchemy.orm import Session

from shared.errors import QuotaExceeded, StorageFull
from shared.ports.rate_limiter import Usage
from shared.postgres.advisory_locks import lock
from shared.postgres.tables import Dataset, Job, Model, UnfinishedUpload
from shared.settings import Settings
from shared.states import JobState

REQUESTS = "requests"
JOBS = "jobs"
UPLOADS = "uploads"
LOOKUPS = "lookups"
BYTES, DATASETS, MODELS = "stored-bytes", "datasets", "models"

STREAMS = "streams"

STREAMS_RETRY_SECONDS = 10
JOBS_RETRY_SECONDS = 30
"""Nobody knows when a job will end; this is a polite time to ask again."""
CROWD = 100
"""As many submissions of one tenant as may be under way at once without a lock; close to the
limit they queue up.
"""


def check_requests(usage: Usage | None) -> None:
    """Refuse a request of a tenant that has sent too many.

    Raises:
        QuotaExceeded: with the time until the next one is taken.
    """
    if usage is not None and not usage.allowed:
        raise QuotaExceeded(
            (
                f"Your tenant has sent {usage.limit} requests in {usage.window_seconds} s, which "
                "is "
                "the limit."
            ),
            policy=REQUESTS,
            retry_seconds=usage.reset_seconds,
        )


def check_streams(opened: int, limit: int) -> None:
    """Refuse another event stream of a tenant that has `limit` open; 0 is no limit.

    Raises:
        QuotaExceeded: the tenant must close one first.
    """
    if limit and opened >= limit:
        raise QuotaExceeded(
            (
                f"Your tenant has {limit} event streams open here, which is the limit; close one, "
                "or "
                f"poll GET /jobs/{{id}}."
            ),
            policy=STREAMS,
            retry_seconds=STREAMS_RETRY_SECONDS,
        )


def check_jobs(session: Session, tenant_id: str, limit: int) -> None:
    """Refuse a job of a tenant that has `limit` unfinished ones; 0 is no limit.

    Far from the limit nothing is locked. Close to it the submissions of a tenant take turns until
    they commit, so that the limit holds exactly.

    Raises:
        QuotaExceeded: the tenant must wait for a job to end.
    """
    if limit == 0 or _unfinished(session, tenant_id) + CROWD < limit:
        return
    lock(session, "jobs", tenant_id)
    if _unfinished(session, tenant_id) >= limit:
        raise QuotaExceeded(
            (
                f"Your tenant has {limit} unfinished jobs, which is the limit; wait for one to "
                "end, "
                "or "
                "cancel one."
            ),
            policy=JOBS,
            retry_seconds=JOBS_RETRY_SECONDS,
        )


@dataclass(frozen=True, slots=True)
class Stored:
    """What a tenant stores, uploads on their way to the storage included."""

    bytes: int
    datasets: int
    models: int
    """That it has uploaded or registered; what its jobs have published counts in bytes alone."""


def stored(session: Session, tenant_id: str) -> Stored:
    """Return what a tenant stores."""
    row = session.connection().execute(_STORED, {"tenant_id": tenant_id}).one()
    return Stored(int(row.bytes), row.datasets, row.models)


def check_storage(
    session: Session, tenant_id: str, kind: str, size_bytes: int, settings: Settings
) -> None:
    """Refuse a data set or model (`kind`) of `size_bytes` that is more than its tenant may store.

    Until the transaction ends nobody else of the tenant gets past this: what is written in it is
    counted by the next one, so that the limits hold exactly.

    Raises:
        StorageFull: with what is used and allowed.
    """
    lock(session, "storage", tenant_id)
    used = stored(session, tenant_id)
    if kind == "dataset":
        _check(
            DATASETS,
            used.datasets,
            1,
            settings.max_tenant_datasets,
            "data sets",
            "EFFACE_MAX_TENANT_DATASETS",
        )
    else:
        _check(
            MODELS, used.models, 1, settings.max_tenant_models, "models", "EFFACE_MAX_TENANT_MODELS"
        )
    _check(
        BYTES, used.bytes, size_bytes, settings.max_tenant_bytes, "bytes", "EFFACE_MAX_TENANT_BYTES"
    )


def _check(policy: str, used: int, more: int, allowed: int, unit: str, setting: str) -> None:
    if allowed and used + more > allowed:
        raise StorageFull(
            f"Your tenant stores {used} {unit} of the {allowed} that it may ({setting}), and this "
            f"would be {more} more;"
            " delete what is no longer needed.",
            policy=policy,
            used=used,
            allowed=allowed,
        )


_OF_TENANT: BindParameter[str] = bindparam("tenant_id")
_HELD = union_all(
    select(literal("dataset").label("kind"), Dataset.size_bytes).where(
        Dataset.tenant_id == _OF_TENANT
    ),
    select(
        case((Model.job_id.is_(None), "model"), else_="result"),
        case((Model.reference.startswith("storage:"), func.coalesce(Model.size_bytes, 0)), else_=0),
    ).where(Model.tenant_id == _OF_TENANT, Model.deleted_at.is_(None)),
    select(UnfinishedUpload.kind, UnfinishedUpload.size_bytes).where(
        UnfinishedUpload.tenant_id == _OF_TENANT
    ),
).subquery()
_STORED = select(
    func.coalesce(func.sum(_HELD.c.size_bytes), 0).label("bytes"),
    func.count().filter(_HELD.c.kind == "dataset").label("datasets"),
    func.count().filter(_HELD.c.kind == "model").label("models"),
)
"""One statement, so that what goes from one table to another meanwhile is counted once."""

_UNFINISHED = (
    select(func.count())
    .select_from(Job)
    .where(
        Job.tenant_id == bindparam("tenant_id"), Job.state.in_((JobState.QUEUED, JobState.RUNNING))
    )
)
"""Built once: asked before every job."""


def _unfinished(session: Session, tenant_id: str) -> int:
    return session.connection().execute(_UNFINISHED, {"tenant_id": tenant_id}).scalar_one()
