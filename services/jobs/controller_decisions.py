"""What the controller rules on a request while its job has not ended: hold, release, extend,
refuse.
"""

from datetime import UTC, datetime

from sqlalchemy.orm import Session

from services.jobs import deadlines, ending, events, outbox, queries
from shared.errors import Conflict
from shared.postgres.tables import Job
from shared.schemas.deadline import Extension, Refusal, RefusalRequest
from shared.schemas.job import JobView
from shared.schemas.stored import stored
from shared.settings import Settings
from shared.states import JobState


def hold(session: Session, tenant_id: str, job_id: str, reason: str) -> JobView:
    """Stop the clock and keep workers away, because the data subject's identity is in doubt (Art.
    12(6)). Idempotent.

    Raises:
        NotFound: the tenant has none of this id.
        Conflict: it runs or has ended.
    """
    job = queries.locked(session, tenant_id, job_id)
    if job.state != JobState.QUEUED:
        raise Conflict(f"The job is {job.state}; only one that is queued can be put on hold.")
    if job.held_at is None:
        job.held_at, job.hold_reason = datetime.now(UTC), reason
        _note(session, job, "job.held", {"reason": reason})
    return queries.view(job)


def release(session: Session, tenant_id: str, job_id: str, settings: Settings) -> JobView:
    """Let the clock go on where it stood, and the job with it.

    Raises:
        NotFound: the tenant has none of this id.
        Conflict: it is not on hold.
    """
    job = queries.locked(session, tenant_id, job_id)
    if job.held_at is None:
        raise Conflict("The job is not on hold; there is nothing to release.")
    job.held_for += datetime.now(UTC) - job.held_at
    job.held_at = job.hold_reason = None
    job.due_at = _due(job, settings)
    _note(session, job, "job.released", {"due_at": job.due_at.isoformat()})
    outbox.ring_later(session, job.id)
    return queries.view(job)


def extend(
    session: Session, tenant_id: str, job_id: str, reason: str, settings: Settings
) -> JobView:
    """Extend the period by two further months. Art. 12(3) wants the reason given within the first
    month.

    Raises:
        NotFound: the tenant has none of this id.
        Conflict: it has ended, was extended before, or the first month is over.
    """
    job = queries.locked(session, tenant_id, job_id)
    now = datetime.now(UTC)
    _must_go_on(job)
    if job.extension is not None:
        raise Conflict("The period was extended already; the law allows it once, by two months.")
    if (job.held_at or now) > job.due_at:
        raise Conflict(
            f"The period ended at {job.due_at.isoformat()}; it can be extended only before its end."
        )
    job.extension = Extension(reason=reason, extended_at=now).model_dump(mode="json")
    job.due_at = _due(job, settings)
    _note(session, job, "job.extended", {"reason": reason, "due_at": job.due_at.isoformat()})
    return queries.view(job)


def refuse(session: Session, tenant_id: str, job_id: str, ruling: RefusalRequest) -> JobView:
    """Refuse the erasure (Art. 12(5), 17(3)): the job is cancelled, and says on what ground. The
    same twice is no error.

    Raises:
        NotFound: the tenant has none of this id.
        Conflict: it has ended, is being cancelled, or was refused on another ground.
    """
    job = queries.locked(session, tenant_id, job_id)
    if job.refusal is not None and _same(stored(Refusal, job.refusal), ruling):
        return queries.view(job)
    _must_go_on(job)
    if job.cancel_requested_at is not None:
        raise Conflict("The job is being cancelled already; it can no longer be refused.")
    refusal = Refusal(ground=ruling.ground, detail=ruling.detail, refused_at=datetime.now(UTC))
    job.refusal = refusal.model_dump(mode="json")
    _note(session, job, "job.refused", {"ground": ruling.ground})
    return ending.cancel(session, tenant_id, job_id)


def _must_go_on(job: Job) -> None:
    if JobState(job.state).final:
        raise Conflict(
            f"The job has ended: it is {job.state}. Nothing can be ruled on it any more."
        )


def _same(refusal: Refusal, ruling: RefusalRequest) -> bool:
    return (refusal.ground, refusal.detail) == (ruling.ground, ruling.detail)


def _due(job: Job, settings: Settings) -> datetime:
    extended = job.extension is not None
    return deadlines.due(
        job.received_at, settings.deadline_time_zone, extended=extended, held_for=job.held_for
    )


def _note(session: Session, job: Job, kind: str, data: dict[str, object]) -> None:
    """Record a change that clients can see."""
    job.version += 1
    events.record(session, job, kind, data)
