"""OpenDSR 2.0: data subject requests from tools that speak it. Each is fulfilled by a job."""

from typing import Annotated

from fastapi import APIRouter, Body, Depends, Request, Response
from starlette.concurrency import run_in_threadpool

from api.dependencies import BeginDep, JobReader, JobWriter, PartsDep, SessionDep, bearer
from api.examples import SUBJECT_REQUEST
from api.json_route import JSON
from api.parts import Parts
from api.signed_route import SignedRoute, responses
from services.subject_requests import opendsr
from services.subject_requests.opendsr import CERTIFICATE_PATH, PREFIX
from services.webhooks import endpoints
from shared.crypto.opendsr_key import ProcessorKey
from shared.errors import NotFound, Unavailable
from shared.schemas.opendsr import (
    CancellationReceipt,
    Discovery,
    FormerSubjectRequest,
    Receipt,
    SignedCancellationReceipt,
    SignedReceipt,
    Status,
    SubjectRequest,
)

router = APIRouter(tags=["opendsr"], route_class=SignedRoute)

FORMER = "/opengdpr_requests"
"""The path of requests while the specification was called OpenGDPR (section 10.1)."""
CACHED = {"Cache-Control": "public, max-age=300"}
RequestBody = Annotated[SubjectRequest, Body(openapi_examples=SUBJECT_REQUEST)]
FormerRequestBody = Annotated[FormerSubjectRequest, Body(openapi_examples=SUBJECT_REQUEST)]


async def _raw_body(request: Request) -> bytes:
    return await request.body()


RawBody = Annotated[bytes, Depends(_raw_body)]


@router.get(
    f"{PREFIX}/discovery",
    summary="What is supported",
    dependencies=[Depends(bearer)],
    responses=responses(),
)
def discovery(parts: PartsDep) -> Discovery:
    """Return identities, types of requests, and where the certificate and the schema of the
    extension are.
    """
    return opendsr.discovery(parts.settings)


@router.get(
    CERTIFICATE_PATH,
    summary="The certificate that signatures are checked with",
    response_class=Response,
    responses={
        200: {
            "content": {"application/x-pem-file": {}},
            "description": "X.509 in PEM, the chain after it",
        },
        503: {"content": responses()[503]["content"], "description": Unavailable.title},
    },
)
def certificate(parts: PartsDep) -> Response:
    """Return the processor's certificate. Needs no API key."""
    return Response(
        ProcessorKey.of(parts.settings).certificate,
        headers=CACHED,
        media_type="application/x-pem-file",
    )


@router.post(
    f"{PREFIX}/requests",
    status_code=201,
    summary="Submit a data subject request",
    response_model=SignedReceipt,
    responses=responses(),
)
async def submit(
    request: RequestBody, body: RawBody, begin: BeginDep, parts: PartsDep, caller: JobWriter
) -> Response:
    """Make a job of an erasure request. `subject_request_id` becomes its `external_id`; sent
    twice, there is one job.
    """

    def submitted() -> Response:
        with begin() as session:
            receipt = opendsr.submit(session, caller.tenant_id, request, body, parts.settings)
        return _signed(receipt, parts, 201)

    if request.status_callback_urls:
        outbound = endpoints.outbound(parts.settings)
        await parts.lookups.run(caller.tenant_id, opendsr.check_callbacks, request, outbound)
    return await run_in_threadpool(submitted)


@router.post(
    PREFIX + FORMER,
    status_code=201,
    summary="Submit a data subject request, under the former name",
    response_model=SignedReceipt,
    responses=responses(),
    deprecated=True,
)
async def submit_former(
    request: FormerRequestBody, body: RawBody, begin: BeginDep, parts: PartsDep, caller: JobWriter
) -> Response:
    """Do the same as under the present name; `regulation` is `gdpr` unless given."""
    return await submit(request, body, begin, parts, caller)


@router.get(
    f"{PREFIX}/requests/{{subject_request_id}}",
    summary="How far a request is",
    responses=responses(NotFound),
)
@router.get(
    f"{PREFIX}{FORMER}/{{subject_request_id}}",
    summary="How far a request is, under the former name",
    responses=responses(NotFound),
    deprecated=True,
)
def status(subject_request_id: str, session: SessionDep, caller: JobReader) -> Status:
    """Return the status: `pending`, `in_progress`, `completed` or `cancelled`. A failed job
    stays `in_progress`, and the extension says why."""
    return opendsr.status(session, caller.tenant_id, subject_request_id)


@router.delete(
    f"{PREFIX}/requests/{{subject_request_id}}",
    status_code=202,
    summary="Cancel a request",
    response_model=SignedCancellationReceipt,
    responses=responses(NotFound),
)
@router.delete(
    f"{PREFIX}{FORMER}/{{subject_request_id}}",
    status_code=202,
    summary="Cancel a request, under the former name",
    response_model=SignedCancellationReceipt,
    responses=responses(NotFound),
    deprecated=True,
)
def cancel(
    subject_request_id: str, session: SessionDep, parts: PartsDep, caller: JobWriter
) -> Response:
    """Cancel a request while it is `pending`."""
    return _signed(opendsr.cancel(session, caller.tenant_id, subject_request_id), parts, 202)


def _signed(receipt: Receipt | CancellationReceipt, parts: Parts, status_code: int) -> Response:
    """Return a receipt with the signature of itself as its last field (section 7.3)."""
    body = receipt.model_dump_json()
    signature = ProcessorKey.of(parts.settings).sign(body.encode())
    return Response(
        f'{body[:-1]},"processor_signature":"{signature}"}}', status_code, media_type=JSON
    )
