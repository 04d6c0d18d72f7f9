"""What a finished job leaves behind and must not: checkpoints, and the objects of attempts that did not win."""

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from shared.schemas.spec import JobSpec
from shared.storage import Storage
from shared.tables import Artifact, Job


def unpurged(session: Session, limit: int = 20) -> list[tuple[JobSpec, int | None]]:
    """Return finished jobs whose leftovers are still there, each with the attempt whose artifacts stay."""
    winner = select(Artifact.attempt).where(Artifact.job_id == Job.id).limit(1).scalar_subquery()
    query = select(Job.spec, winner).where(Job.finished_at.is_not(None), Job.purged_at.is_(None))
    rows = session.execute(query.order_by(Job.finished_at).limit(limit))
    return [(JobSpec.model_validate(spec), attempt) for spec, attempt in rows]


def delete_leftovers(storage: Storage, spec: JobSpec, kept_attempt: int | None) -> int:
    """Delete every object of a job but those of the kept attempt; return how many. Slow: hold no transaction."""
    stays = None if kept_attempt is None else f"{spec.job_prefix}/{kept_attempt}/"
    gone = [o.key for o in storage.list(spec.job_prefix) if stays is None or not o.key.startswith(stays)]
    for key in gone:
        storage.delete(key)
    return len(gone)


def sweep_again(session: Session, job_id: str) -> None:
    """Have a finished job's leftovers deleted once more: an attempt without a lease may have written meanwhile."""
    session.execute(update(Job).where(Job.id == job_id).values(purged_at=None))


def mark_purged(session: Session, job_id: str) -> None:
    """Note that nothing is left over."""
    session.execute(update(Job).where(Job.id == job_id).values(purged_at=func.clock_timestamp()))
