"""How a job ends: cancelled by its owner, or brought into its final state."""

from datetime import UTC, datetime

from sqlalchemy.orm import Session

from services.jobs.events import record
from services.jobs.queries import locked, view
from shared.errors import Conflict
from shared.postgres.tables import Job
from shared.schemas.job import JobView
from shared.states import JobState


def cancel(session: Session, tenant_id: str, job_id: str) -> JobView:
    """Cancel a job: at once while it waits; while it runs, its worker is told with the next
    heartbeat. Idempotent.

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
    if state == JobState.SUCCEEDED:
        job.progress = 1.0
    job.stage = None
    job.finished_at = datetime.now(UTC)
    job.lease_owner = job.lease_expires_at = None
    job.held_at = job.hold_reason = None
    if job.data_key is not None:  # nobody will go on from its checkpoints
        job.data_key, job.key_destroyed_at = None, job.finished_at
    job.version += 1
    record(session, job, f"job.{state}", data)
