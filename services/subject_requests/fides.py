"""Erasures that Fides asks for: a job for each privacy request, a status that fails where the job
has, and the call-back.

Fides knows one word for success and takes everything else for work in progress, for 30 days. So
a job that has failed or was cancelled is an error here, which ends the task in Fides at once."""

from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import ValidationError
from sqlalchemy import delete
from sqlalchemy.orm import Session

from services.jobs import queries, submission
from services.webhooks import deliveries, endpoints
from shared.errors import Conflict, FieldError, InvalidRequest
from shared.postgres.tables import Job, Webhook
from shared.request_rules.time_of_receipt import check_received
from shared.schemas.fides import FidesErasure, FidesJob
from shared.schemas.request import ErasureRequest
from shared.schemas.validation_errors import invalid_request
from shared.settings import Settings
from shared.states import CallKind, JobState

CALLBACK_PATH = "/api/v1/request-task/callback"
"""Where Fides takes call-backs. It names the path in each request; no other one is ever called."""


@dataclass(frozen=True, slots=True)
class ReplyTo:
    """Where and by what right Fides wants to be called."""

    path: str
    token: str


def submit(
    session: Session,
    tenant_id: str,
    wanted: FidesErasure,
    settings: Settings,
    *,
    class_: str,
    privacy_request: str,
    received_at: datetime | None,
    reply_to: ReplyTo | None,
) -> FidesJob:
    """Make the job of a privacy request. Sent twice there is one, unless the first has failed or
    was cancelled.

    Raises:
        InvalidRequest: with every field that is wrong.
        QuotaExceeded: the tenant has too many unfinished jobs.
        Unavailable: there is no master key to seal the token with.
    """
    url = _callback_url(reply_to, settings)
    if received_at is not None:
        check_received(received_at, "", parameter="received_at")
    request = _request(wanted, class_, privacy_request, received_at)
    job = submission.submit(session, tenant_id, request, settings)
    if url and reply_to:
        _call_later(
            session, queries.locked(session, tenant_id, job.id), url, reply_to.token, settings
        )
    return FidesJob(id=job.id, status=job.state)


def status(session: Session, tenant_id: str, job_id: str) -> FidesJob:
    """Return how far a job is.

    Raises:
        NotFound: the tenant has none of this id.
        Conflict: it has failed or was cancelled.
    """
    job = queries.get(session, tenant_id, job_id)
    if job.state in (JobState.FAILED, JobState.CANCELLED):
        why = job.error.code if job.error else job.refusal.ground if job.refusal else None
        raise Conflict(
            f"The job has ended without an erasure: {job.state}{f' ({why})' if why else ''}."
        )
    return FidesJob(id=job.id, status=job.state)


def _call_later(session: Session, job: Job, url: str, token: str, settings: Settings) -> None:
    """Have Fides called once the job has succeeded, at once where it has: a task that is tried
    again has a new token.
    """
    session.execute(delete(Webhook).where(Webhook.job_id == job.id, Webhook.kind == CallKind.FIDES))
    webhook_id = endpoints.add_for_job(
        session, job.tenant_id, job.id, CallKind.FIDES, url, ["job.succeeded"]
    )
    endpoints.add_token(session, job.tenant_id, webhook_id, token, settings)
    if job.state == JobState.SUCCEEDED:
        event = deliveries.Event("job.succeeded", 0, datetime.now(UTC))
        deliveries.owe(session, job, event, only=webhook_id)


def _request(
    wanted: FidesErasure, class_: str, privacy_request: str, received_at: datetime | None
) -> ErasureRequest:
    body = wanted.model_dump(mode="json", exclude_unset=True)
    body["target"] = {"type": "class", "class": class_, "labels": body.pop("labels")}
    body |= {"external_id": f"fides-{privacy_request}", "received_at": received_at}
    try:
        return ErasureRequest.model_validate(body)
    except ValidationError as error:
        found = invalid_request(error, body).errors
        raise InvalidRequest([FieldError(_sent(e.pointer), e.detail) for e in found]) from error


def _sent(pointer: str) -> str:
    """Return where a client finds a field of the target that was made here."""
    return "/labels" if pointer.startswith("/target") else pointer


def _callback_url(reply_to: ReplyTo | None, settings: Settings) -> str | None:
    if reply_to is None:
        return None
    if settings.fides_url is None:
        raise InvalidRequest.at(
            "", "asks for a call-back, which is off here; set EFFACE_FIDES_URL, or let Fides poll"
        )
    if reply_to.path != CALLBACK_PATH:
        raise InvalidRequest.at(
            "", f"has a reply-to header that is not {CALLBACK_PATH}, where Fides takes call-backs"
        )
    return settings.fides_url.rstrip("/") + CALLBACK_PATH
