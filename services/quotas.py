"""What one tenant may ask of the service: requests in a time, and jobs at once."""

from sqlalchemy import bindparam, func, select
from sqlalchemy.orm import Session

from shared.errors import QuotaExceeded
from shared.limiter import Usage
from shared.locks import lock
from shared.states import JobState
from shared.tables import Job

REQUESTS = "requests"
JOBS = "jobs"

STREAMS = "streams"

STREAMS_RETRY_SECONDS = 10
JOBS_RETRY_SECONDS = 30
"""Nobody knows when a job will end; this is a polite time to ask again."""
CROWD = 100
"""As many submissions of one tenant as may be under way at once without a lock; close to the limit they queue up."""


def check_requests(usage: Usage | None) -> None:
    """Refuse a request of a tenant that has sent too many.

    Raises:
        QuotaExceeded: with the time until the next one is taken.
    """
    if usage is not None and not usage.allowed:
        raise QuotaExceeded(
            f"Your tenant has sent {usage.limit} requests in {usage.window_seconds} s, which is the limit.",
            policy=REQUESTS,
            retry_seconds=usage.reset_seconds,
        )


def check_streams(opened: int, limit: int) -> None:
    """Refuse another event stream of a tenant that has `limit` open; 0 is no limit.

    Raises:
        QuotaExceeded: the tenant must close one first.
    """
    if limit and opened >= limit:
        raise QuotaExceeded(
            f"Your tenant has {limit} event streams open here, which is the limit; close one, or poll GET /jobs/{{id}}.",
            policy=STREAMS,
            retry_seconds=STREAMS_RETRY_SECONDS,
        )


def check_jobs(session: Session, tenant_id: str, limit: int) -> None:
    """Refuse a job of a tenant that has `limit` unfinished ones; 0 is no limit.

    Far from the limit nothing is locked. Close to it the submissions of a tenant take turns until they commit, so
    that the limit holds exactly.

    Raises:
        QuotaExceeded: the tenant must wait for a job to end.
    """
    if limit == 0 or _unfinished(session, tenant_id) + CROWD < limit:
        return
    lock(session, "jobs", tenant_id)
    if _unfinished(session, tenant_id) >= limit:
        raise QuotaExceeded(
            f"Your tenant has {limit} unfinished jobs, which is the limit; wait for one to end, or cancel one.",
            policy=JOBS,
            retry_seconds=JOBS_RETRY_SECONDS,
        )


_UNFINISHED = (
    select(func.count())
    .select_from(Job)
    .where(Job.tenant_id == bindparam("tenant_id"), Job.state.in_((JobState.QUEUED, JobState.RUNNING)))
)
"""Built once: asked before every job."""


def _unfinished(session: Session, tenant_id: str) -> int:
    return session.connection().execute(_UNFINISHED, {"tenant_id": tenant_id}).scalar_one()
