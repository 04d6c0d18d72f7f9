"""Jobs as their owner handles them: submit, look, cancel. What workers do to them is in `lifecycle`."""

import math
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Select, bindparam, func, insert, select
from sqlalchemy.orm import Session

from services import audit_log, checks, deadlines, deliveries, duplicates, quotas, retention
from services.pages import Page, page_of
from shared.database import EVENTS_CHANNEL, OUTBOX_CHANNEL
from shared.errors import Conflict, Gone, InvalidRequest, NotFound
from shared.ids import new_id
from shared.references import LocalData
from shared.resolution import Resolved
from shared.schemas.deadline import Extension, Hold, Refusal
from shared.schemas.job import ArtifactView, EventView, JobDraft, JobError, JobView, MetricPoint, MetricSeries
from shared.schemas.purge import Removal
from shared.schemas.request import ErasureRequest, Thresholds
from shared.schemas.resolution import RequestWarning
from shared.schemas.stored import readable
from shared.settings import Settings
from shared.states import JobState, Stage
from shared.tables import DOCUMENT_VERSION, Artifact, Job, JobEvent, JobMetric, Outbox

DOORBELL = "doorbell"
QUEUED = "job.queued"
REPORTS = {"report.json": "report", "report.html": "report page"}

# Each is one round trip and built once: every request and every step of every job passes here.
_OWED = insert(Outbox).values(kind=DOORBELL, job_id=bindparam("job_id")).cte("owed")
_OWE = select(func.pg_notify(OUTBOX_CHANNEL, "")).add_cte(_OWED)
_ROW = select(Job).where(Job.id == bindparam("job_id"), Job.tenant_id == bindparam("tenant_id"))
_ROW_LOCKED = _ROW.with_for_update()
_LAST = select(func.coalesce(func.max(JobEvent.seq), 0)).where(JobEvent.job_id == bindparam("job_id"))
_APPEND = (
    insert(JobEvent)
    .values(
        job_id=bindparam("job_id"),
        seq=_LAST.scalar_subquery() + 1,
        tenant_id=bindparam("tenant_id"),
        type=bindparam("type"),
        data=bindparam("data"),
    )
    .returning(JobEvent.seq, JobEvent.created_at, func.pg_notify(EVENTS_CHANNEL, JobEvent.job_id).label("called"))
)
_APPENDED = _APPEND.cte("appended")
_APPEND_AND_AUDIT = select(_APPENDED.c.seq, _APPENDED.c.created_at).add_cte(audit_log.WRITTEN)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """What a list of jobs is narrowed to."""

    state: JobState | None = None
    method: str | None = None
    model_id: str | None = None
    external_id: str | None = None


class Look(NamedTuple):
    """Events of a job, oldest first."""

    events: tuple[EventView, ...]
    has_more: bool
    ended: bool
    """True if the job had ended before the events were read: what is not among them, or behind them, will never come."""


def validated(
    session: Session, tenant_id: str, request: ErasureRequest, settings: Settings, local: LocalData | None = None
) -> JobDraft | JobView:
    """Check a request as `submit` does, and write nothing. Return what it would be, or the job that stands for it already.

    `local` is what `checks.read_local` has read of the request. Whoever gives none must hold no connection yet.

    Raises:
        InvalidRequest: with every field that is wrong.
    """
    resolved = checks.resolve(session, tenant_id, request, settings, local)
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
    session: Session, tenant_id: str, request: ErasureRequest, settings: Settings, local: LocalData | None = None
) -> JobView:
    """Check a request, and write job, event and outbox row.

    Where a job stands for the same erasure already (see `services.duplicates`), that one is returned as `existing`.
    `local` is what `checks.read_local` has read of the request. Whoever gives none must hold no connection yet.

    Raises:
        InvalidRequest: with every field that is wrong.
        QuotaExceeded: the tenant has too many unfinished jobs.
    """
    resolved = checks.resolve(session, tenant_id, request, settings, local)
    business_key = duplicates.business_key(request, resolved.model, resolved.data)
    if business_key and (twin := duplicates.standing(session, tenant_id, business_key)):
        return view(twin).model_copy(update={"existing": True})
    columns = _columns(tenant_id, request, resolved, business_key, settings)
    job = Job(**columns)
    quotas.check_jobs(session, tenant_id, settings.max_unfinished_jobs)
    _write(session, job, columns)
    retention.link(session, job.id, resolved.data)
    return view(job)


def _columns(
    tenant_id: str, request: ErasureRequest, resolved: Resolved, business_key: str | None, settings: Settings
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
    """Return the statement that makes a job from these columns, given as `job_<column>`, with all that goes along."""
    made = insert(Job).values({name: bindparam(f"job_{name}") for name in columns}).cte("made")
    notify = func.pg_notify(OUTBOX_CHANNEL, "")
    return select(_APPENDED.c.seq, _APPENDED.c.created_at, notify).add_cte(made, audit_log.WRITTEN, _OWED)


def _write(session: Session, job: Job, columns: dict[str, Any]) -> None:
    """Do for a new job what `record` and `ring_later` do for one that is there, in the statement that makes it."""
    entry = audit_log.entry(session, job, QUEUED, {}) or {}
    values = {"job_id": job.id, "tenant_id": job.tenant_id, "type": QUEUED, "data": {}} | entry
    values |= {f"job_{name}": value for name, value in columns.items()}
    row = session.connection().execute(_submit(tuple(columns)), values).one()
    deliveries.owe(session, job, deliveries.Event(QUEUED, row.seq, row.created_at))


def ring_later(session: Session, job_id: str) -> None:
    """Owe the queue a message for this job, and wake the relay when the transaction commits."""
    session.flush()
    session.connection().execute(_OWE, {"job_id": job_id})


def record(session: Session, job: Job, kind: str, data: dict[str, object]) -> None:
    """Append an event, owe it to the tenant's webhooks, and write it into the audit log.

    The caller holds the job's row lock, or has just made it, so that `seq` has no gaps or twins.
    """
    session.flush()  # the event refers to the job
    values = {"job_id": job.id, "tenant_id": job.tenant_id, "type": kind, "data": data}
    entry = audit_log.entry(session, job, kind, data)
    append = _APPEND if entry is None else _APPEND_AND_AUDIT
    row = session.connection().execute(append, values | (entry or {})).one()
    deliveries.owe(session, job, deliveries.Event(kind, row.seq, row.created_at, data))


def get(session: Session, tenant_id: str, job_id: str) -> JobView:
    """Return one job.

    Raises:
        NotFound: the tenant has none of this id.
    """
    return view(_row(session, tenant_id, job_id))


def list_page(
    session: Session, tenant_id: str, wanted: JobFilter, *, after: str | None = None, limit: int = 20
) -> Page[JobView]:
    """Return a page of a tenant's jobs, newest first."""
    columns = {"state": Job.state, "method": Job.method, "model_id": Job.model_id, "external_id": Job.external_id}
    query = select(Job)
    for name, column in columns.items():
        if (value := getattr(wanted, name)) is not None:
            query = query.where(column == value)
    page = page_of(session, query, Job, tenant_id=tenant_id, after=after, limit=limit)
    return Page([view(row) for row in page.data], page.has_more)


def cancel(session: Session, tenant_id: str, job_id: str) -> JobView:
    """Cancel a job: at once while it waits; while it runs, its worker is told with the next heartbeat. Idempotent.

    Raises:
        NotFound: the tenant has none of this id.
        Conflict: it has succeeded or failed already.
    """
    job = locked(session, tenant_id, job_id)
    state = JobState(job.state)
    if state in (JobState.SUCCEEDED, JobState.FAILED):
        raise Conflict(f"The job has {state} already; a finished job cannot be cancelled.")
    if state is JobState.QUEUED:
        job.cancel_requested_at = datetime.now(UTC)
        finish(session, job, JobState.CANCELLED, {})
    elif state is JobState.RUNNING and job.cancel_requested_at is None:
        job.cancel_requested_at = datetime.now(UTC)
        job.version += 1
        record(session, job, "job.cancel_requested", {})
    return view(job)


def finish(session: Session, job: Job, state: JobState, data: dict[str, object]) -> None:
    """Bring a locked job into a final state."""
    job.state = state
    job.stage = None
    job.finished_at = datetime.now(UTC)
    job.lease_owner = job.lease_expires_at = None
    job.held_at = job.hold_reason = None
    if job.data_key is not None:  # nobody will go on from its checkpoints
        job.data_key, job.key_destroyed_at = None, job.finished_at
    job.version += 1
    record(session, job, f"job.{state}", data)


def events(session: Session, tenant_id: str, job_id: str, *, after: int = 0, limit: int = 100) -> Page[EventView]:
    """Return a job's events with `seq` above `after`, oldest first."""
    _row(session, tenant_id, job_id)
    query = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.seq > after)
    rows = session.scalars(query.order_by(JobEvent.seq).limit(limit + 1)).all()
    data = [EventView(seq=row.seq, type=row.type, data=row.data, created_at=row.created_at) for row in rows[:limit]]
    return Page(data, len(rows) > limit)


def look(session: Session, tenant_id: str, job_id: str, *, after: int, limit: int) -> Look:
    """Return a job's events with `seq` above `after`, and whether more will come.

    Raises:
        NotFound: the tenant has no job of this id.
    """
    ended = JobState(_row(session, tenant_id, job_id).state).final  # before the events: what comes later is not missed
    page = events(session, tenant_id, job_id, after=after, limit=limit)
    return Look(tuple(page.data), page.has_more, ended)


def metrics(session: Session, tenant_id: str, job_id: str) -> list[MetricSeries]:
    """Return every series that the job's method reported, in order of time."""
    _row(session, tenant_id, job_id)
    series: dict[str, list[MetricPoint]] = defaultdict(list)
    for row in session.scalars(select(JobMetric).where(JobMetric.job_id == job_id).order_by(JobMetric.id)):
        value = row.value if row.value is not None and math.isfinite(row.value) else None
        series[row.name].append(MetricPoint(attempt=row.attempt, stage=Stage(row.stage), step=row.step, value=value))
    return [MetricSeries(name=name, points=tuple(points)) for name, points in series.items()]


def artifacts(session: Session, tenant_id: str, job_id: str) -> list[ArtifactView]:
    """Return the files that a finished job left."""
    _row(session, tenant_id, job_id)
    rows = session.scalars(select(Artifact).where(Artifact.job_id == job_id).order_by(Artifact.name))
    return [
        ArtifactView(
            name=r.name,
            key=r.key,
            sha256=r.sha256,
            size_bytes=r.size_bytes,
            quarantined=r.quarantined,
            removed_at=r.removed_at,
            removal_reason=r.removal_reason,
        )
        for r in rows
    ]


def report(session: Session, tenant_id: str, job_id: str) -> ArtifactView:
    """Return where the report is.

    Raises:
        Conflict: the job has none, or none yet.
        Gone: it was removed.
    """
    return _artifact(session, tenant_id, job_id, "report.json")


def report_page(session: Session, tenant_id: str, job_id: str) -> ArtifactView:
    """Return where the report is as a page.

    Raises:
        Conflict: the job has none, or none yet.
        Gone: it was removed.
    """
    return _artifact(session, tenant_id, job_id, "report.html")


def weights(session: Session, tenant_id: str, job_id: str, file: str) -> ArtifactView:
    """Return where a file of the published model is.

    Raises:
        Conflict: nothing was published, or not yet.
        Gone: it was removed.
    """
    return _artifact(session, tenant_id, job_id, f"model/{file}")


def view(job: Job) -> JobView:
    """Return a row as clients see it."""
    return JobView(
        id=job.id,
        state=JobState(job.state),
        stage=Stage(job.stage) if job.stage else None,
        progress=job.progress,
        attempt=job.attempt,
        request=readable(ErasureRequest, job.request, job.id),
        thresholds=readable(Thresholds, job.spec.get("thresholds"), job.id),
        warnings=tuple(w for w in (readable(RequestWarning, row, job.id) for row in job.warnings) if w),
        verdict=job.verdict,
        error=readable(JobError, job.error, job.id) if job.error else None,
        result_model=job.result_model_id,
        external_id=job.external_id,
        cancel_requested=job.cancel_requested_at is not None,
        received_at=job.received_at,
        due_at=job.due_at,
        hold=Hold(since=job.held_at, reason=job.hold_reason or "") if job.held_at else None,
        extension=readable(Extension, job.extension, job.id) if job.extension else None,
        refusal=readable(Refusal, job.refusal, job.id) if job.refusal else None,
        at_risk_at=job.at_risk_at,
        removals=tuple(entry for row in job.removals or () if (entry := readable(Removal, row, job.id))),
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        version=job.version,
    )


def locked(session: Session, tenant_id: str, job_id: str) -> Job:
    """Return a job's row, locked until the transaction ends.

    Raises:
        NotFound: the tenant has none of this id.
    """
    return _row(session, tenant_id, job_id, lock=True)


def _due(received_at: datetime, settings: Settings) -> datetime:
    try:
        return deadlines.due(received_at, settings.deadline_time_zone)
    except (OverflowError, ValueError) as error:
        raise InvalidRequest.at("/received_at", "lies outside the calendar; give the time of the request") from error


def _row(session: Session, tenant_id: str, job_id: str, *, lock: bool = False) -> Job:
    job = session.scalar(_ROW_LOCKED if lock else _ROW, {"job_id": job_id, "tenant_id": tenant_id})
    if job is None:
        raise NotFound("job", job_id)
    return job


def _artifact(session: Session, tenant_id: str, job_id: str, name: str) -> ArtifactView:
    job = _row(session, tenant_id, job_id)
    for artifact in artifacts(session, tenant_id, job_id):
        if artifact.name == name:
            _still_there(artifact)
            return artifact
    published = name.startswith("model/")
    what = f"published file {name.removeprefix('model/')!r}" if published else REPORTS[name]
    if not JobState(job.state).final:
        raise Conflict(f"The job is {job.state}; it has no {what} before it ends.")
    why = f" ({job.error['code']})" if job.error else ""
    raise Conflict(f"The job has {job.state}{why} and left no {what}.")


REMOVED = {"model_deleted": "its model was deleted", "retention_ended": "the time for which it is kept is over"}


def _still_there(artifact: ArtifactView) -> None:
    """Refuse what was removed.

    Raises:
        Gone: with the reason and the time.
    """
    if artifact.removed_at is not None:
        why = REMOVED.get(artifact.removal_reason or "", "it was removed")
        raise Gone(f"{artifact.name} was removed at {artifact.removed_at.isoformat(timespec='seconds')}: {why}.")
