"""Certificates, and the public keys that anyone checks them with, open to strangers."""

from typing import Annotated

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import JSONResponse

from api.conditional import entity_tag, matches
from api.dependencies import BeginDep, JobReader, PartsDep, SessionDep
from api.json_route import Route
from api.problems import CONTENT, responses
from services.certificates import issuing, signing_keys
from shared.crypto.dsse import Envelope
from shared.crypto.public_keys import KEYS_PATH, jwk_set
from shared.errors import Conflict, NotFound, Unavailable

router = APIRouter(tags=["certificates"], route_class=Route)

KEY_SECONDS = 300
"""How long a verifier may keep the keys: a revoked one is known everywhere after this."""
NOT_MODIFIED = {"description": "It has not changed since the ETag"}

IfNoneMatch = Annotated[str | None, Header()]


@router.get(
    "/jobs/{job_id}/certificate",
    summary="The certificate of a job that has a verdict",
    response_model=Envelope,
    responses=responses(NotFound, Conflict, also={304: NOT_MODIFIED}),
)
def certificate(
    job_id: str,
    begin: BeginDep,
    parts: PartsDep,
    caller: JobReader,
    number: Annotated[
        int | None,
        Query(ge=1, le=1_000_000, description="an earlier one of the job; the last one if unset"),
    ] = None,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Return the signed envelope, byte for byte as it was issued.

    It comes within seconds after the job has ended, for a missed threshold, too. Until then the
    answer is 409 with code `not_yet`."""
    with begin() as session:
        artifact = issuing.find(session, caller.tenant_id, job_id, number)
    headers = {"ETag": entity_tag(artifact.sha256)}
    if matches(if_none_match, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return Response(parts.storage.get(artifact.key), headers=headers, media_type="application/json")


@router.get(
    KEYS_PATH,
    summary="The public keys that certificates are checked with",
    response_class=Response,
    responses={
        200: {
            "content": {"application/jwk-set+json": {}},
            "description": "A JSON Web Key Set (RFC 7517, 8037)",
        },
        503: {"content": CONTENT, "description": Unavailable.title},
    },
)
def public_keys(session: SessionDep) -> Response:
    """Return every key that signs or has signed, but for those that were revoked. Needs no API
    key.
    """
    headers = {"Cache-Control": f"public, max-age={KEY_SECONDS}"}
    return JSONResponse(
        jwk_set(signing_keys.published(session)),
        headers=headers,
        media_type="application/jwk-set+json",
    )
