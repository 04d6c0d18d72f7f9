"""What OpenDSR says of a job: four words of status, and in an extension what they cannot say."""

from datetime import UTC
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.postgres.tables import Job, OpenDsrRequest
from shared.schemas.opendsr import Callback, RequestStatus, Status
from shared.schemas.webhook import EventType
from shared.states import JobState

CALLED_FOR: tuple[EventType, ...] = (
    "job.started",
    "job.extended",
    "job.succeeded",
    "job.failed",
    "job.cancelled",
)
"""Events after which the status, or the time that it promises, is another one."""


def request_status(job: Job) -> RequestStatus:
    """Return the status of a request (section 8).

    There is no word for a failure: what has failed is not completed, and stays `in_progress`
    until somebody acts."""
    if job.state == JobState.SUCCEEDED:
        return "completed"
    if job.state == JobState.CANCELLED:
        return "cancelled"
    return "pending" if job.state == JobState.QUEUED and job.started_at is None else "in_progress"


def status(request: OpenDsrRequest, job: Job) -> Status:
    """Return how far a request is."""
    said = request_status(job)
    return Status(
        controller_id=request.tenant_id,
        expected_completion_time=job.due_at.astimezone(UTC),
        subject_request_id=request.subject_request_id,
        request_status=said,
        results_url=f"{request.base_url}/jobs/{job.id}/certificate"
        if said == "completed"
        else None,
        extensions={request.domain: _extension(job)},
    )


def callback_body(session: Session, job: Job, event_type: str, url: str) -> str | None:
    """Return what a request's controller is told of an event, None where its status is what it
    was.
    """
    if event_type == "job.started" and job.attempt > 1:
        return None
    row = session.scalar(select(OpenDsrRequest).where(OpenDsrRequest.job_id == job.id))
    if row is None:
        return None
    return Callback(**status(row, job).model_dump(), status_callback_url=url).model_dump_json()


def _extension(job: Job) -> dict[str, Any]:
    said: dict[str, Any] = {"job": job.id, "state": job.state}
    if job.error:
        said["reason"] = job.error["code"]
    if job.refusal:
        said["ground"] = job.refusal["ground"]
    return said
