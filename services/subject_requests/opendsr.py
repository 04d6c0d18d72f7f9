"""OpenDSR 2.0: data subject requests as that specification writes them, fulfilled by ordinary jobs.

Such a request names a person, a job names a class of a model: our extension of the request says
which. What it says of the person is not needed, and neither kept nor logged. See
docs/decisions/0019."""

import base64
import hashlib
import json
from datetime import UTC, datetime

from pydantic import ValidationError
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from services.jobs import ending, queries, submission, validation
from services.webhooks import endpoints, opendsr_body
from shared.crypto.opendsr_key import ProcessorKey
from shared.errors import Conflict, InvalidRequest, NotFound
from shared.ports.outbound_http import Outbound
from shared.postgres.advisory_locks import lock
from shared.postgres.tables import Job, OpenDsrRequest, Webhook, WebhookDelivery
from shared.request_rules.time_of_receipt import check_received
from shared.schemas.opendsr import (
    SUPPORTED_IDENTITIES,
    CancellationReceipt,
    Discovery,
    Receipt,
    Status,
    SubjectRequest,
)
from shared.schemas.request import ErasureRequest
from shared.schemas.validation_errors import invalid_request
from shared.settings import Settings
from shared.states import CallKind, DeliveryState

PREFIX = "/opendsr/v2"
CERTIFICATE_PATH = f"{PREFIX}/certificate.pem"
EXTENSION_SCHEMA = "/openapi.json#/components/schemas/ErasureRequest"
GIVEN_OUTSIDE = ("external_id", "received_at")
"""Fields of an erasure that the request has in other places: `subject_request_id` and
`submitted_time`.
"""


def discovery(settings: Settings) -> Discovery:
    """Return what is supported.

    Raises:
        Unavailable: OpenDSR is not set up.
    """
    key = ProcessorKey.of(settings)
    base = _base_url(settings, key)
    return Discovery(
        supported_identities=SUPPORTED_IDENTITIES,
        processor_certificate=base + CERTIFICATE_PATH,
        extensions={key.domain: {"schema": base + EXTENSION_SCHEMA}},
    )


def check_callbacks(request: SubjectRequest, outbound: Outbound) -> None:
    """Find out whether the call-backs may be called. Slow, for it asks the name server: hold no
    transaction.

    Raises:
        InvalidRequest: one may not.
    """
    for number, url in enumerate(request.status_callback_urls):
        endpoints.check_url(url, outbound, f"/status_callback_urls/{number}")


def submit(
    session: Session, tenant_id: str, request: SubjectRequest, body: bytes, settings: Settings
) -> Receipt:
    """Make the job that fulfils a request. The same request again is answered as it was the first
    time.

    Raises:
        InvalidRequest: it is no erasure, or our extension is missing or wrong.
        Conflict: its id was used for another request.
        QuotaExceeded: the tenant has too many unfinished jobs.
        Unavailable: OpenDSR is not set up.
    """
    key = ProcessorKey.of(settings)
    erasure = _erasure(request, key.domain)
    local = validation.read_local(erasure, settings)  # before a connection is held
    lock(session, "opendsr", tenant_id, request.subject_request_id)
    row = _find(session, tenant_id, request.subject_request_id)
    if row is None:
        job_id = submission.submit(session, tenant_id, erasure, settings, local=local).id
        row = _add(session, tenant_id, request, job_id, key.domain, _base_url(settings, key))
    elif row.fingerprint != _fingerprint(request):
        raise Conflict(
            "The subject_request_id was used for another request; make a new UUID for a new "
            "request."
        )
    return Receipt(
        controller_id=tenant_id,
        expected_completion_time=_job(session, row).due_at.astimezone(UTC),
        received_time=row.created_at.astimezone(UTC),
        encoded_request=base64.b64encode(body).decode(),
        subject_request_id=row.subject_request_id,
    )


def status(session: Session, tenant_id: str, subject_request_id: str) -> Status:
    """Return how far a request is, and how many of its call-backs could not be delivered.

    Raises:
        NotFound: the tenant has none of this id.
    """
    row = _existing(session, tenant_id, subject_request_id)
    said = opendsr_body.status(row, _job(session, row))
    failed = (Webhook.job_id == row.job_id, WebhookDelivery.state == DeliveryState.FAILED)
    undelivered = session.scalar(
        select(func.count()).select_from(WebhookDelivery).join(Webhook).where(*failed)
    )
    extension = said.extensions[row.domain] | {"undelivered_callbacks": undelivered or 0}
    return said.model_copy(update={"extensions": {row.domain: extension}})


def cancel(session: Session, tenant_id: str, subject_request_id: str) -> CancellationReceipt:
    """Cancel a request while it is `pending` (section 9).

    Raises:
        NotFound: the tenant has none of this id.
        Conflict: it is no longer pending.
    """
    row = _existing(session, tenant_id, subject_request_id)
    said = opendsr_body.request_status(queries.locked(session, tenant_id, row.job_id))
    if said != "pending":
        raise Conflict(f"The request is {said}; only one that is pending can be cancelled here.")
    ending.cancel(session, tenant_id, row.job_id)
    return CancellationReceipt(
        controller_id=tenant_id,
        received_time=datetime.now(UTC),
        subject_request_id=row.subject_request_id,
    )


def _erasure(request: SubjectRequest, domain: str) -> ErasureRequest:
    """Return the erasure that a request asks for."""
    if request.subject_request_type != "erasure":
        raise InvalidRequest.at(
            "/subject_request_type", "must be erasure; a model holds no file to give access to"
        )
    asked = request.extensions.get(domain)
    if asked is None:
        raise InvalidRequest.at(
            "/extensions",
            (
                f"must say under {domain!r} what to forget: model, target and method, as POST "
                "/jobs "
                "takes them"
            ),
        )
    pointer = "/extensions/" + domain
    for name in GIVEN_OUTSIDE:
        if name in asked:
            raise InvalidRequest.at(
                f"{pointer}/{name}", "is taken from the request itself; leave it out here"
            )
    check_received(request.submitted_time, "/submitted_time")
    outside = {"external_id": request.subject_request_id, "received_at": request.submitted_time}
    try:
        return ErasureRequest.model_validate(asked | outside)
    except ValidationError as error:
        raise invalid_request(error, asked).under(pointer) from error


def _add(
    session: Session,
    tenant_id: str,
    request: SubjectRequest,
    job_id: str,
    domain: str,
    base_url: str,
) -> OpenDsrRequest:
    row = OpenDsrRequest(
        tenant_id=tenant_id,
        subject_request_id=request.subject_request_id,
        job_id=job_id,
        regulation=request.regulation,
        domain=domain,
        base_url=base_url,
        fingerprint=_fingerprint(request),
    )
    session.add(row)
    for url in dict.fromkeys(request.status_callback_urls):
        endpoints.add_for_job(
            session, tenant_id, job_id, CallKind.OPENDSR, url, opendsr_body.CALLED_FOR
        )
    session.flush()
    session.refresh(row)
    return row


def _fingerprint(request: SubjectRequest) -> str:
    """Return a digest that tells nothing of the person: a digest of an address could be found by
    trying addresses.
    """
    said = request.model_dump(mode="json", exclude={"subject_identities"})
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _base_url(settings: Settings, key: ProcessorKey) -> str:
    return (settings.public_url or f"https://{key.domain}").rstrip("/")


def _find(session: Session, tenant_id: str, subject_request_id: str) -> OpenDsrRequest | None:
    return session.get(OpenDsrRequest, (tenant_id, subject_request_id.lower()))


def _existing(session: Session, tenant_id: str, subject_request_id: str) -> OpenDsrRequest:
    row = _find(session, tenant_id, subject_request_id)
    if row is None:
        raise NotFound("subject request", subject_request_id, listed="/jobs")
    return row


def _job(session: Session, request: OpenDsrRequest) -> Job:
    return session.get_one(Job, request.job_id)
