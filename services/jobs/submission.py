"""Submit a job: check the request, then write job, event and outbox row in one statement."""

from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from sqlalchemy import Select, bindparam, func, insert, select
from sqlalchemy.orm import Session

from services.access import quotas
from services.audit_log import entries
from services.jobs import business_key as duplicates
from services.jobs import data_used, deadlines, validation
from services.jobs.events import _APPENDED
from services.jobs.outbox import _OWED
from services.jobs.queries import view
from services.webhooks import deliveries
from shared.errors import InvalidRequest
from shared.ids import new_id
from shared.postgres.database import OUTBOX_CHANNEL
from shared.postgres.tables import DOCUMENT_VERSION, Job
from shared.request_rules.references import LocalData
from shared.request_rules.resolution import Resolved
from shared.schemas.job import JobDraft, JobView
from shared.schemas.request import ErasureRequest
from shared.settings import Settings
from shared.states import JobState

QUEUED = "job.queued"


def validated(
    session: Session,
    tenant_id: str,
    request: ErasureRequest,
    settings: Settings,
    local: LocalData | None = None,
) -> JobDraft | JobView:
    """Check a request as `submit` does, and write nothing. Return what it would be, or the job that
    stands for it already.

    `local` is what `checks.read_local` has read of the request. Whoever gives none must hold no
    connection yet.

    Raises:
        InvalidRequest: with every field that is wrong.
    """
    resolved = validation.resolve(session, tenant_id, request, settings, local)
    business_key = duplicates.business_key(request, resolved.model, resolved.data)
    if business_key and (twin := duplicates.standing(session, tenant_id, business_key)):
        return view(twin).model_copy(update={"existing": True})
    received_at = request.received_at or datetime.now(UTC)
    return JobDraft(
        request=request,
        thresholds=resolved.thresholds,
        labels=resolved.labels,
        sets=resolved.sets,
        warnings=resolved.warnings,
        external_id=request.external_id,
        received_at=received_at,
        due_at=_due(received_at, settings),
    )


def submit(
    session: Session,
    tenant_id: str,
    request: ErasureRequest,
    settings: Settings,
    local: LocalData | None = None,
) -> JobView:
    """Check a request, and write job, event and outbox row.

    Where a job stands for the same erasure already (see `services.jobs.queries.business_key`), that
    one is returned as `existing`. `local` is what `checks.read_local` has read of the request.
    Whoever gives none must hold no connection yet.

    Raises:
        InvalidRequest: with every field that is wrong.
        QuotaExceeded: the tenant has too many unfinished jobs.
    """
    resolved = validation.resolve(session, tenant_id, request, settings, local)
    business_key = duplicates.business_key(request, resolved.model, resolved.data)
    if business_key and (twin := duplicates.standing(session, tenant_id, business_key)):
        return view(twin).model_copy(update={"existing": True})
    columns = _columns(tenant_id, request, resolved, business_key, settings)
    job = Job(**columns)
    quotas.check_jobs(session, tenant_id, settings.max_unfinished_jobs)
    _write(session, job, columns)
    data_used.link(session, job.id, resolved.data)
    return view(job)


def _columns(
    tenant_id: str,
    request: ErasureRequest,
    resolved: Resolved,
    business_key: str | None,
    settings: Settings,
) -> dict[str, Any]:
    """Return the row of a new job."""
    now = datetime.now(UTC)
    job_id = new_id("job")
    spec = resolved.spec(request, job_id=job_id, tenant_id=tenant_id, attempt=0)
    return {
        "id": job_id,
        "tenant_id": tenant_id,
        "state": JobState.QUEUED,
        "progress": 0.0,
        "version": 1,
        "attempt": 0,
        "request": request.model_dump(mode="json", exclude_unset=True),
        "spec": spec.model_dump(mode="json", exclude={"warnings"}),
        "warnings": [warning.model_dump() for warning in resolved.warnings],
        "document_version": DOCUMENT_VERSION,
        "removals": [],
        "method": request.method.name,
        "model_id": resolved.model.id,
        "external_id": request.external_id,
        "business_key": business_key,
        "received_at": request.received_at or now,
        "due_at": _due(request.received_at or now, settings),
        "held_for": timedelta(),
        "max_attempts": settings.max_attempts,
        "created_at": now,
    }


@cache
def _submit(columns: tuple[str, ...]) -> Select[tuple[int, datetime, None]]:
    """Return the statement that makes a job from these columns, given as `job_<column>`, with
    all that goes along.
    """
    made = insert(Job).values({name: bindparam(f"job_{name}") for name in columns}).cte("made")
    notify = func.pg_notify(OUTBOX_CHANNEL, "")
    return select(_APPENDED.c.seq, _APPENDED.c.created_at, notify).add_cte(
        made, entries.WRITTEN, _OWED
    )


def _write(session: Session, job: Job, columns: dict[str, Any]) -> None:
    """Do for a new job what `record` and `ring_later` do for one that is there, in the statement
    that makes it.
    """
    entry = entries.entry(session, job, QUEUED, {}) or {}
    values = {"job_id": job.id, "tenant_id": job.tenant_id, "type": QUEUED, "data": {}} | entry
    values |= {f"job_{name}": value for name, value in columns.items()}
    row = session.connection().execute(_submit(tuple(columns)), values).one()
    deliveries.owe(session, job, deliveries.Event(QUEUED, row.seq, row.created_at))


def _due(received_at: datetime, settings: Settings) -> datetime:
    try:
        return deadlines.due(received_at, settings.deadline_time_zone)
    except (OverflowError, ValueError) as error:
        raise InvalidRequest.at(
            "/received_at", "lies outside the calendar; give the time of the request"
        ) from error
