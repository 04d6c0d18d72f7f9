"""How many jobs there are, how long they wait, what is owed and who works: figures of the whole
service, for its operator.
"""

from collections import Counter
from dataclasses import dataclass

from sqlalchemy import ColumnElement, extract, func, select
from sqlalchemy.orm import Session

from services.fleet import processes
from shared.postgres.tables import Dataset, Job, WebhookDelivery
from shared.states import DeliveryState, DoorbellState, JobState, ProcessKind

UNFINISHED = Job.state.in_((JobState.QUEUED, JobState.RUNNING))


@dataclass(frozen=True, slots=True)
class Owed:
    """What the relay has still to do."""

    certificates: int
    """Jobs with a verdict whose certificate is not issued yet."""
    purges: int
    """Finished jobs whose leftovers are not deleted yet, and data sets whose bytes are to go."""
    deliveries: int
    """Calls to webhooks that are due and not made yet."""


@dataclass(frozen=True, slots=True)
class Census:
    """Jobs of all tenants, and the processes that work on them."""

    jobs: dict[JobState, int]
    """Every state is there, also those that no job is in."""
    oldest_queued_seconds: float
    """How long the job that waits longest has waited; 0 where none waits."""
    at_risk: int
    """Unfinished jobs that are expected to end after they are due."""
    overdue: int
    """Unfinished jobs that are past it; those on hold do not count."""
    owed: Owed
    processes: dict[tuple[ProcessKind, str], int]
    """By kind and `busy` or `idle`, of those that are alive."""
    doorbells_silent: int
    """Workers whose listener takes no messages, or that do not reach Redis."""
    doorbell_renewals: int
    """How often the workers that are alive have made their listener anew."""
    relay_seconds: float | None
    """Since a relay was last heard of; None where none is known."""


def take(session: Session) -> Census:
    """Count."""
    counted: dict[str, int] = dict(
        session.execute(select(Job.state, func.count()).group_by(Job.state)).all()
    )
    waiting = select(extract("epoch", func.now() - func.min(Job.created_at))).where(
        Job.state == JobState.QUEUED, Job.held_at.is_(None)
    )
    known = processes.seen(session)
    alive = [process for process in known if process.alive]
    relays = [process.silent_seconds for process in known if process.kind is ProcessKind.RELAY]
    workers = [process.facts for process in alive if process.kind is ProcessKind.WORKER]
    doing = Counter((process.kind, "busy" if process.job_id else "idle") for process in alive)
    kinds = [
        (ProcessKind.WORKER, "busy"),
        (ProcessKind.WORKER, "idle"),
        (ProcessKind.RELAY, "idle"),
    ]
    return Census(
        jobs={state: counted.get(state, 0) for state in JobState},
        oldest_queued_seconds=float(session.scalar(waiting) or 0.0),
        at_risk=_count(session, UNFINISHED, Job.at_risk_at.is_not(None)),
        overdue=_count(session, UNFINISHED, Job.held_at.is_(None), Job.due_at < func.now()),
        owed=owed(session),
        processes={kind: doing[kind] for kind in kinds},
        doorbells_silent=sum(facts.get("doorbell") != DoorbellState.HEARD for facts in workers),
        doorbell_renewals=sum(facts.get("renewals", 0) for facts in workers),
        relay_seconds=min(relays, default=None),
    )


def owed(session: Session) -> Owed:
    """Count what the relay has still to do."""
    purging = select(func.count()).select_from(Dataset).where(Dataset.purging_at.is_not(None))
    due = (
        WebhookDelivery.state == DeliveryState.PENDING,
        WebhookDelivery.next_attempt_at <= func.now(),
    )
    return Owed(
        certificates=_count(session, Job.verdict.is_not(None), Job.certified_at.is_(None)),
        purges=_count(session, Job.finished_at.is_not(None), Job.purged_at.is_(None))
        + (session.scalar(purging) or 0),
        deliveries=session.scalar(select(func.count()).select_from(WebhookDelivery).where(*due))
        or 0,
    )


def _count(session: Session, *which: ColumnElement[bool]) -> int:
    return session.scalar(select(func.count()).select_from(Job).where(*which)) or 0
