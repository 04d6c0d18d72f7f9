"""What workers and the reconciler do to jobs. Every write names the attempt that it belongs to: the
fence.

A worker that lost its lease finds its writes refused, whatever it believes about itself.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import NamedTuple

from sqlalchemy import ColumnElement, and_, func, insert, or_, select, text, update
from sqlalchemy.orm import Session

from services.catalog import datasets
from services.jobs import turns, weight_downloads
from services.jobs.ending import finish
from services.jobs.events import record
from services.jobs.outbox import ring_later
from shared.ids import new_id
from shared.postgres.tables import Artifact, Job, JobMetric, Model, Outbox, Tenant
from shared.schemas.job import JobError
from shared.schemas.result import PipelineResult
from shared.schemas.spec import JobSpec
from shared.schemas.stored import Unreadable, stored_spec
from shared.states import JobState, Stage

WORKER_LOST = "worker_lost"
TRIES = 50
"""So often a worker asks anew whose turn it is where another one was quicker each time."""
PATIENCE = "10s"
"""For a row that somebody holds. A worker that was frozen amid a claim must not hold up the
others: Postgres ends its transaction after as long, and whoever waited looks again."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A job that a worker holds."""

    spec: JobSpec
    attempt: int
    waited_seconds: float
    """Since it was put into the queue, or a message was sent for it."""


class Standing(NamedTuple):
    """How a job stands."""

    state: JobState
    error: str | None
    """The code, where it failed."""
    verdict: str | None


class Lease(StrEnum):
    """What a worker learns when it renews its lease."""

    HELD = "held"
    CANCEL = "cancel"
    """Held, and the owner of the job wants it stopped."""
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Step:
    """What was measured at a step of a method."""

    stage: Stage
    step: int
    metrics: dict[str, float]


def claim_next(
    session: Session, owner: str, lease_seconds: float, weights: Mapping[str, float] | None = None
) -> Claim | None:
    """Take the job whose turn it is (`services.jobs.queries.turns`), or return None where none
    waits.

    Nothing tells a worker which job it is: whoever wakes up asks here.

    Raises:
        OperationalError: a row was locked for longer than `PATIENCE`.
    """
    session.execute(
        text(
            f"SELECT set_config('lock_timeout', '{PATIENCE}', true),"
            f" set_config('idle_in_transaction_session_timeout', '{PATIENCE}', true)"
        )
    )
    for _ in range(TRIES):
        job_id = turns.first_in_line(session, weights)
        if job_id is None:
            return None
        if (taken := claim(session, job_id, owner, lease_seconds)) is not None:
            return taken
    return None


def claim(session: Session, job_id: str, owner: str, lease_seconds: float) -> Claim | None:
    """Take a job by compare-and-set, or return None: it is taken, on hold, finished or was never
    there.

    What may be taken: a job that waits, and one whose lease has run out. A row that is locked is
    waited for. A job whose specification cannot be read by this version fails: no worker of this
    version could run it."""
    now = func.clock_timestamp()
    waited = func.extract("epoch", now - func.coalesce(Job.doorbell_at, Job.created_at))
    row = session.execute(
        update(Job)
        .where(Job.id == job_id, *_free())
        .values(
            state=JobState.RUNNING,
            attempt=Job.attempt + 1,
            lease_owner=owner,
            lease_expires_at=now + timedelta(seconds=lease_seconds),
            started_at=func.coalesce(Job.started_at, now),
            stage=None,
            progress=0.0,
            version=Job.version + 1,
        )
        .returning(Job, waited)
    ).one_or_none()
    if row is None:
        return None
    job, waited_seconds = row
    session.execute(update(Tenant).where(Tenant.id == job.tenant_id).values(served_at=now))
    record(session, job, "job.started", {"attempt": job.attempt})
    try:
        spec = stored_spec(job.spec | {"attempt": job.attempt, "warnings": job.warnings})
    except Unreadable as error:  # it would stay first in the line, and be claimed for ever
        _fail(session, job, JobError(code=error.code, message=f"{error.title}: {error.detail}."))
        return None
    return Claim(datasets.with_keys(session, spec), job.attempt, float(waited_seconds))


def standing(session: Session, job_id: str) -> Standing:
    """Return how a job stands, for whoever has just worked on it."""
    columns = (Job.state, Job.error["code"].astext, Job.verdict)
    state, error, verdict = session.execute(select(*columns).where(Job.id == job_id)).one()
    return Standing(JobState(state), error, verdict)


def renew(session: Session, job_id: str, attempt: int, owner: str, lease_seconds: float) -> Lease:
    """Renew a lease."""
    row = session.execute(
        update(Job)
        .where(*_fence(job_id, attempt), Job.lease_owner == owner)
        .values(lease_expires_at=func.clock_timestamp() + timedelta(seconds=lease_seconds))
        .returning(Job.cancel_requested_at)
    ).one_or_none()
    if row is None:
        return Lease.LOST
    return Lease.HELD if row[0] is None else Lease.CANCEL


def enter_stage(session: Session, job_id: str, attempt: int, stage: Stage) -> bool:
    """Record that a stage begins; False if the attempt is no longer current."""
    job = _current(session, job_id, attempt)
    if job is None:
        return False
    job.stage, job.progress = stage, 0.0
    job.version += 1
    record(session, job, "job.stage", {"stage": stage, "attempt": attempt})
    return True


def record_steps(
    session: Session, job_id: str, attempt: int, steps: Sequence[Step], progress: float | None
) -> bool:
    """Record what was measured, and how far the stage is; False if the attempt is no longer
    current.
    """
    job = _current(session, job_id, attempt)
    if job is None:
        return False
    rows = [
        {
            "job_id": job_id,
            "tenant_id": job.tenant_id,
            "attempt": attempt,
            "stage": step.stage,
            "step": step.step,
            "name": name,
            "value": value if math.isfinite(value) else None,
        }
        for step in steps
        for name, value in step.metrics.items()
    ]
    if rows:
        session.execute(insert(JobMetric), rows)
    if progress is not None:
        job.progress = progress
        job.version += 1
    if steps:
        last = steps[-1]
        record(
            session,
            job,
            "job.progress",
            {"stage": last.stage, "step": last.step, "progress": job.progress} | _finite(last),
        )
    return True


def complete(session: Session, job_id: str, attempt: int, result: PipelineResult) -> bool:
    """Commit how a run ended: artifacts, the published model, verdict and final state.

    A job whose owner cancelled it meanwhile is cancelled: once a cancel was accepted, nothing is
    published. False if the attempt is not current: then nothing is written."""
    job = _current(session, job_id, attempt)
    if job is None:
        return False
    if _cancelled(session, job):
        return True
    for artifact in result.artifacts:
        session.add(
            Artifact(
                job_id=job_id, tenant_id=job.tenant_id, attempt=attempt, **artifact.model_dump()
            )
        )
    job.verdict = result.verdict
    if result.verdict == "passed":
        job.result_model_id = _publish(session, job, result).id
        finish(session, job, JobState.SUCCEEDED, {"result_model": job.result_model_id})
        weight_downloads.notify_superseded(session, job)
    else:
        _fail(
            session,
            job,
            result.error or JobError(code="failed", message="The pipeline gave no reason."),
        )
    return True


def fail(session: Session, job_id: str, attempt: int, error: JobError) -> bool:
    """End a job that trying again would not help; False if the attempt is not current."""
    job = _current(session, job_id, attempt)
    if job is None:
        return False
    if not _cancelled(session, job):
        _fail(session, job, error)
    return True


def confirm_cancel(session: Session, job_id: str, attempt: int) -> bool:
    """End a job whose child was killed because its owner cancelled it; False if the attempt is
    not current.
    """
    job = _current(session, job_id, attempt)
    if job is None:
        return False
    finish(session, job, JobState.CANCELLED, {})
    return True


def give_back(
    session: Session, job_id: str, attempt: int, reason: JobError, *, counts: bool = True
) -> bool:
    """Queue a job again whose attempt was lost, or fail it with `reason` when its attempts are used
    up.

    An attempt that ended because its worker was told to stop does not count (`counts=False`):
    the limit grows by one."""
    job = _current(session, job_id, attempt)
    if job is None:
        return False
    if not counts:
        job.max_attempts += 1
    _requeue(session, job, reason)
    return True


def take_back(session: Session, limit: int = 100) -> int:
    """Queue again, or end, the jobs whose lease ran out; return how many. Rows that another one
    holds are skipped.
    """
    expired = (Job.state == JobState.RUNNING, Job.lease_expires_at < func.clock_timestamp())
    query = select(Job).where(*expired).order_by(Job.created_at).limit(limit)
    jobs = session.scalars(query.with_for_update(skip_locked=True)).all()
    for job in jobs:
        _requeue(
            session,
            job,
            JobError(
                code=WORKER_LOST, message="its worker was not heard of until the lease ran out"
            ),
        )
    return len(jobs)


def ring_again(
    session: Session, *, messages: int, republish_seconds: float, limit: int = 1000
) -> int:
    """Ring for jobs whose message seems lost, those first that waited longest; return for how many.

    A job that waits long need not have lost its message: the workers may be busy. Messages are
    missing only where fewer lie on the queue (`messages`) than jobs wait, so the queue never
    grows longer than the line of jobs."""
    owed = select(Outbox.id).where(Outbox.job_id == Job.id).exists()
    rung = (Job.state == JobState.QUEUED, Job.held_at.is_(None), ~owed)
    expected = session.scalar(select(func.count()).select_from(Job).where(*rung)) or 0
    last_rung = func.coalesce(Job.doorbell_at, Job.created_at)
    unheard = last_rung < func.clock_timestamp() - timedelta(seconds=republish_seconds)
    missing = min(limit, max(0, expected - messages))
    query = select(Job).where(*rung, unheard).order_by(last_rung).limit(missing)
    jobs = session.scalars(query.with_for_update(skip_locked=True)).all()
    for job in jobs:
        job.doorbell_at = func.clock_timestamp()  # not again before the message had its chance
        ring_later(session, job.id)
    return len(jobs)


def _free() -> tuple[ColumnElement[bool], ...]:
    """What a worker may take."""
    lost = and_(Job.state == JobState.RUNNING, Job.lease_expires_at < func.clock_timestamp())
    return (
        or_(Job.state == JobState.QUEUED, lost),
        Job.held_at.is_(None),
        Job.cancel_requested_at.is_(None),
        Job.attempt < Job.max_attempts,
    )


def _fence(job_id: str, attempt: int) -> tuple[ColumnElement[bool], ...]:
    return (Job.id == job_id, Job.state == JobState.RUNNING, Job.attempt == attempt)


def _current(session: Session, job_id: str, attempt: int) -> Job | None:
    """Return the job, locked, if this attempt still holds it."""
    return session.scalar(select(Job).where(*_fence(job_id, attempt)).with_for_update())


def _cancelled(session: Session, job: Job) -> bool:
    """Cancel a job whose owner asked for it; False where nobody did."""
    if job.cancel_requested_at is None:
        return False
    finish(session, job, JobState.CANCELLED, {})
    return True


def _requeue(session: Session, job: Job, reason: JobError) -> None:
    if _cancelled(session, job):
        return
    if job.attempt >= job.max_attempts:
        message = (
            f"The job was started {job.attempt} times and lost each time; the last time "
            f"{reason.message}."
        )
        _fail(session, job, JobError(code=reason.code, message=message, detail=reason.detail))
        return
    job.state, job.progress = JobState.QUEUED, 0.0
    job.stage = job.lease_owner = job.lease_expires_at = None
    job.progress = 0.0
    job.doorbell_at = func.clock_timestamp()
    job.version += 1
    record(session, job, "job.requeued", {"attempt": job.attempt, "reason": reason.message})
    ring_later(session, job.id)


def _fail(session: Session, job: Job, error: JobError) -> None:
    job.error = error.model_dump(mode="json")
    finish(session, job, JobState.FAILED, {"code": error.code, "message": error.message})


def _publish(session: Session, job: Job, result: PipelineResult) -> Model:
    weights = next(a for a in result.artifacts if a.name == "model/open_clip_model.safetensors")
    model = Model(
        id=new_id("mdl"),
        tenant_id=job.tenant_id,
        name=f"after {job.id}",
        architecture=result.architecture,
        reference=f"storage:{weights.key.removesuffix('/open_clip_model.safetensors')}",
        digest=result.model_digest,
        size_bytes=weights.size_bytes,
        parent_id=job.model_id,
        job_id=job.id,
    )
    session.add(model)
    session.flush()  # the job refers to it
    return model


def _finite(step: Step) -> dict[str, object]:
    return {
        "metrics": {name: value for name, value in step.metrics.items() if math.isfinite(value)}
    }
