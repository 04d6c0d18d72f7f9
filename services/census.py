"""How many jobs there are and how long they wait: figures of the whole service, for its operator."""

from dataclasses import dataclass

from sqlalchemy import extract, func, select
from sqlalchemy.orm import Session

from shared.states import JobState
from shared.tables import Job


@dataclass(frozen=True, slots=True)
class Census:
    """Jobs of all tenants."""

    jobs: dict[JobState, int]
    """Every state is there, also those that no job is in."""
    oldest_queued_seconds: float
    """How long the job that waits longest has waited; 0 where none waits."""
    certificates_owed: int
    """Jobs with a verdict whose certificate is not issued yet."""


def take(session: Session) -> Census:
    """Count."""
    counted: dict[str, int] = dict(session.execute(select(Job.state, func.count()).group_by(Job.state)).all())
    waiting = select(extract("epoch", func.now() - func.min(Job.created_at))).where(
        Job.state == JobState.QUEUED, Job.held_at.is_(None)
    )
    oldest = session.scalar(waiting)
    uncertified = (Job.verdict.is_not(None), Job.certified_at.is_(None))
    owed = session.scalar(select(func.count()).select_from(Job).where(*uncertified))
    return Census({state: counted.get(state, 0) for state in JobState}, float(oldest or 0.0), owed or 0)
