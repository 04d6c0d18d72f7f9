"""The one writer of a job's events, with the deliveries and the audit entry of each."""

from sqlalchemy import bindparam, func, insert, select
from sqlalchemy.orm import Session

from services.audit_log import entries
from services.webhooks import deliveries
from shared.postgres.database import EVENTS_CHANNEL
from shared.postgres.tables import Job, JobEvent

_LAST = select(func.coalesce(func.max(JobEvent.seq), 0)).where(
    JobEvent.job_id == bindparam("job_id")
)
_APPEND = (
    insert(JobEvent)
    .values(
        job_id=bindparam("job_id"),
        seq=_LAST.scalar_subquery() + 1,
        tenant_id=bindparam("tenant_id"),
        type=bindparam("type"),
        data=bindparam("data"),
    )
    .returning(
        JobEvent.seq,
        JobEvent.created_at,
        func.pg_notify(EVENTS_CHANNEL, JobEvent.job_id).label("called"),
    )
)
_APPENDED = _APPEND.cte("appended")
_APPEND_AND_AUDIT = select(_APPENDED.c.seq, _APPENDED.c.created_at).add_cte(entries.WRITTEN)


def record(session: Session, job: Job, kind: str, data: dict[str, object]) -> None:
    """Append an event, owe it to the tenant's webhooks, and write it into the audit log.

    The caller holds the job's row lock, or has just made it, so that `seq` has no gaps or twins.
    """
    session.flush()  # the event refers to the job
    values = {"job_id": job.id, "tenant_id": job.tenant_id, "type": kind, "data": data}
    entry = entries.entry(session, job, kind, data)
    append = _APPEND if entry is None else _APPEND_AND_AUDIT
    row = session.connection().execute(append, values | (entry or {})).one()
    deliveries.owe(session, job, deliveries.Event(kind, row.seq, row.created_at, data))
