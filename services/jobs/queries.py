"""Jobs as their owner reads them: one, a page of them, events, metrics, artifacts."""

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import ColumnElement, bindparam, or_, select
from sqlalchemy.orm import Session

from services.pages import Order, Page, page_of
from shared.errors import Conflict, Gone, NotFound
from shared.postgres.tables import Artifact, Job, JobEvent, JobMetric
from shared.schemas.deadline import Extension, Hold, Refusal
from shared.schemas.job import ArtifactView, EventView, JobError, JobView, MetricPoint, MetricSeries
from shared.schemas.purge import Removal
from shared.schemas.request import ErasureRequest, Thresholds
from shared.schemas.resolution import RequestWarning
from shared.schemas.stored import readable
from shared.states import JobState, Stage

THRESHOLDS_NOT_MET = "thresholds_not_met"
REPORTS = {"report.json": "report", "report.html": "report page"}
_ROW = select(Job).where(Job.id == bindparam("job_id"), Job.tenant_id == bindparam("tenant_id"))
_ROW_LOCKED = _ROW.with_for_update()


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """What a list of jobs is narrowed to."""

    state: JobState | None = None
    unfinished: bool | None = None
    """True: only those that are queued or running; false: only those that have ended."""
    method: str | None = None
    model_id: str | None = None
    external_id: str | None = None
    verdict: str | None = None
    due_before: datetime | None = None
    created_after: datetime | None = None
    received_from: datetime | None = None
    text: str | None = None
    """In the id, the reference, the class or the subgroup; case makes no difference."""
    by_due: bool = False
    """What is due first comes first; else what is newest."""


class Look(NamedTuple):
    """Events of a job, oldest first."""

    events: tuple[EventView, ...]
    has_more: bool
    ended: bool
    """True if the job had ended before the events were read: what is not among them, or behind
    them, will never come.
    """


def get(session: Session, tenant_id: str, job_id: str) -> JobView:
    """Return one job.

    Raises:
        NotFound: the tenant has none of this id.
    """
    return view(_row(session, tenant_id, job_id))


def list_page(
    session: Session,
    tenant_id: str,
    wanted: JobFilter,
    *,
    after: str | None = None,
    limit: int = 20,
) -> Page[JobView]:
    """Return a page of a tenant's jobs, newest first, or with `by_due` what is due first."""
    query = select(Job).where(*_narrowed(wanted))
    order = Order(Job.due_at, descending=False) if wanted.by_due else None
    page = page_of(session, query, Job, tenant_id=tenant_id, after=after, limit=limit, order=order)
    return Page([view(row) for row in page.data], page.has_more)


def _narrowed(wanted: JobFilter) -> Iterator[ColumnElement[bool]]:
    columns = {
        "state": Job.state,
        "method": Job.method,
        "model_id": Job.model_id,
        "external_id": Job.external_id,
        "verdict": Job.verdict,
    }
    for name, column in columns.items():
        if (value := getattr(wanted, name)) is not None:
            yield column == value
    if wanted.unfinished is not None:
        open_states = (JobState.QUEUED, JobState.RUNNING)
        yield Job.state.in_(open_states) if wanted.unfinished else Job.state.not_in(open_states)
    if wanted.due_before is not None:
        yield Job.due_at < wanted.due_before
    if wanted.created_after is not None:
        yield Job.created_at > wanted.created_after
    if wanted.received_from is not None:
        yield Job.received_at >= wanted.received_from
    if wanted.text is not None:
        target = Job.request["target"]
        places = (Job.id, Job.external_id, target["class"].astext, target["subgroup"].astext)
        yield or_(*(place.icontains(wanted.text, autoescape=True) for place in places))


def events(
    session: Session, tenant_id: str, job_id: str, *, after: int = 0, limit: int = 100
) -> Page[EventView]:
    """Return a job's events with `seq` above `after`, oldest first."""
    _row(session, tenant_id, job_id)
    query = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.seq > after)
    rows = session.scalars(query.order_by(JobEvent.seq).limit(limit + 1)).all()
    data = [
        EventView(seq=row.seq, type=row.type, data=row.data, created_at=row.created_at)
        for row in rows[:limit]
    ]
    return Page(data, len(rows) > limit)


def look(session: Session, tenant_id: str, job_id: str, *, after: int, limit: int) -> Look:
    """Return a job's events with `seq` above `after`, and whether more will come.

    Raises:
        NotFound: the tenant has no job of this id.
    """
    ended = JobState(
        _row(session, tenant_id, job_id).state
    ).final  # before the events: what comes later is not missed
    page = events(session, tenant_id, job_id, after=after, limit=limit)
    return Look(tuple(page.data), page.has_more, ended)


def metrics(session: Session, tenant_id: str, job_id: str) -> list[MetricSeries]:
    """Return every series that the job's method reported, in order of time."""
    _row(session, tenant_id, job_id)
    series: dict[str, list[MetricPoint]] = defaultdict(list)
    for row in session.scalars(
        select(JobMetric).where(JobMetric.job_id == job_id).order_by(JobMetric.id)
    ):
        value = row.value if row.value is not None and math.isfinite(row.value) else None
        series[row.name].append(
            MetricPoint(attempt=row.attempt, stage=Stage(row.stage), step=row.step, value=value)
        )
    return [MetricSeries(name=name, points=tuple(points)) for name, points in series.items()]


def artifacts(session: Session, tenant_id: str, job_id: str) -> list[ArtifactView]:
    """Return the files that a finished job left."""
    _row(session, tenant_id, job_id)
    rows = session.scalars(
        select(Artifact).where(Artifact.job_id == job_id).order_by(Artifact.name)
    )
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
        warnings=tuple(
            w for w in (readable(RequestWarning, row, job.id) for row in job.warnings) if w
        ),
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
        removals=tuple(
            entry for row in job.removals or () if (entry := readable(Removal, row, job.id))
        ),
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
    if published and (missed := _missed(job)):
        raise Conflict(
            f"No weights were published: {missed} missed. See GET /jobs/{job.id}/report."
        )
    why = f" ({job.error['code']})" if job.error else ""
    raise Conflict(f"The job has {job.state}{why} and left no {what}.")


REMOVED = {
    "model_deleted": "its model was deleted",
    "retention_ended": "the time for which it is kept is over",
}


def _still_there(artifact: ArtifactView) -> None:
    """Refuse what was removed.

    Raises:
        Gone: with the reason and the time.
    """
    if artifact.removed_at is not None:
        why = REMOVED.get(artifact.removal_reason or "", "it was removed")
        raise Gone(
            f"{artifact.name} was removed at "
            f"{artifact.removed_at.isoformat(timespec='seconds')}: "
            f"{why}."
        )


def _missed(job: Job) -> str | None:
    """Return how many of how many thresholds a job missed, None where that is not how it ended
    or is not known.
    """
    error = JobError.model_validate(job.error) if job.error else None
    if error is None or error.code != THRESHOLDS_NOT_MET:
        return None
    missed = len(error.detail.get("missed", ()))
    if not missed:
        return None
    total = Thresholds.model_validate(job.spec["thresholds"]).count()
    return f"{missed} of {total} thresholds {'was' if missed == 1 else 'were'}"
