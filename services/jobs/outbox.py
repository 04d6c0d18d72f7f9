"""What a job still owes: a wake-up for the workers, a certificate."""

from collections.abc import Sequence

from sqlalchemy import bindparam, func, insert, select, update
from sqlalchemy.orm import Session

from shared.postgres.database import OUTBOX_CHANNEL
from shared.postgres.tables import Job, Outbox


def owe(session: Session, job_ids: Sequence[str]) -> None:
    """Owe jobs a certificate once more: there is something new to certify, such as the receipt
    of their purge.
    """
    session.execute(update(Job).where(Job.id.in_(job_ids)).values(certified_at=None))


DOORBELL = "doorbell"
# Each is one round trip and built once: every request and every step of every job passes here.
_OWED = insert(Outbox).values(kind=DOORBELL, job_id=bindparam("job_id")).cte("owed")
_OWE = select(func.pg_notify(OUTBOX_CHANNEL, "")).add_cte(_OWED)


def ring_later(session: Session, job_id: str) -> None:
    """Owe the queue a message for this job, and wake the relay when the transaction commits."""
    session.flush()
    session.connection().execute(_OWE, {"job_id": job_id})
