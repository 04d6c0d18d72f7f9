"""What a finished job left: its report and the published weights."""

from base64 import b64encode
from collections.abc import Mapping
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import RedirectResponse, StreamingResponse

from api.conditional import HEAD, Unsatisfiable, byte_range, entity_tag, matches
from api.dependencies import BeginDep, JobReader, PartsDep, SessionDep
from api.json_route import Route
from api.problems import responses
from services.jobs import queries, weight_downloads
from services.purging import job_leftovers
from shared.errors import Conflict, Gone, NotFound
from shared.files.tokenizer_files import TokenizerFile
from shared.ports.object_storage import Storage
from shared.schemas.job import ArtifactView
from shared.schemas.purge import PurgeReceipt
from shared.schemas.report import REPORT_SCHEMA_PATH, Report

router = APIRouter(prefix="/jobs", tags=["jobs"], route_class=Route)

WeightsFile = Literal[
    "open_clip_model.safetensors", "open_clip_config.json", "config.json", TokenizerFile
]
IfNoneMatch = Annotated[str | None, Header()]
WEIGHTS: Final = "open_clip_model.safetensors"
NOT_MODIFIED = 304


async def _head(request: Request) -> bool:
    """True for HEAD, which hands nothing out: it enters no register of who has fetched what."""
    return bool(request.scope.get(HEAD))


Head = Annotated[bool, Depends(_head)]

REPORT_HEADERS = {"Link": f'<{REPORT_SCHEMA_PATH}>; rel="describedby"'}
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'; sandbox",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
"""The page itself narrows `style-src` to the digest of its one style sheet; a browser keeps to
both policies.
"""


@router.get(
    "/{job_id}/report",
    summary="The report of a job that has ended",
    response_model=Report,
    responses=responses(NotFound, Conflict, Gone),
)
def report(
    job_id: str,
    begin: BeginDep,
    parts: PartsDep,
    caller: JobReader,
    head: Head,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Return report.json, byte for byte as the worker wrote it. A job that missed a threshold
    has one, too.
    """
    with begin() as session:
        artifact = queries.report(session, caller.tenant_id, job_id)
    response = _whole(parts.storage, artifact, if_none_match, "application/json", REPORT_HEADERS)
    if response.status_code != NOT_MODIFIED and not head:
        with begin() as session:
            weight_downloads.report_fetched(session, caller, job_id)
    return response


@router.get(
    "/{job_id}/report.html",
    summary="The report as a page for people",
    response_class=Response,
    responses=responses(
        NotFound,
        Conflict,
        Gone,
        also={
            200: {"content": {"text/html": {}}, "description": "One self-contained page"},
            304: {"description": "It is the page of the ETag"},
        },
    ),
)
def report_page(
    job_id: str,
    begin: BeginDep,
    parts: PartsDep,
    caller: JobReader,
    head: Head,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Return report.html, byte for byte as the worker wrote it: no script, and nothing that it
    loads from elsewhere.
    """
    with begin() as session:
        artifact = queries.report_page(session, caller.tenant_id, job_id)
    response = _whole(parts.storage, artifact, if_none_match, "text/html", PAGE_HEADERS)
    if response.status_code != NOT_MODIFIED and not head:
        with begin() as session:
            weight_downloads.report_fetched(session, caller, job_id)
    return response


@router.get(
    "/{job_id}/weights",
    summary="The published weights",
    response_class=Response,
    responses=responses(
        NotFound,
        Conflict,
        Gone,
        also={
            200: {"content": {"application/octet-stream": {}}, "description": "The file"},
            206: {
                "content": {"application/octet-stream": {}},
                "description": "The range that was asked for",
            },
            304: {"description": "It is the file of the ETag"},
            307: {
                "description": "The storage gives the file, at a URL that is valid for some minutes"
            },
            416: {"description": "The file has no such byte"},
        },
    ),
)
def weights(
    job_id: str,
    begin: BeginDep,
    parts: PartsDep,
    caller: JobReader,
    head: Head,
    file: Annotated[
        WeightsFile,
        Query(
            description="of open_clip's local-dir layout; of a tokenizer or text tower beside it"
        ),
    ] = WEIGHTS,
    range_: Annotated[str | None, Header(alias="Range")] = None,
    if_range: Annotated[str | None, Header()] = None,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Return a file of the new model, by redirect where the storage can sign URLs.

    Weights that missed a threshold are never given out: the answer is 409 with the reason. HEAD
    is never redirected: a signed URL is good for GET alone."""
    with begin() as session:
        artifact = queries.weights(session, caller.tenant_id, job_id, file)
    tag = entity_tag(artifact.sha256)
    if matches(if_none_match, tag):
        return Response(status_code=304, headers={"ETag": tag})
    wanted = range_ if if_range in (None, tag) else None
    if head:
        answer = _streamed(parts.storage, artifact, file, wanted)
        return Response(status_code=answer.status_code, headers=dict(answer.headers))
    signed = parts.storage.sign(artifact.key, parts.settings.weights_url_seconds)
    response: Response
    if signed is not None:
        headers = {"Repr-Digest": _digest(artifact), "Cache-Control": "no-store"}
        response = RedirectResponse(signed, 307, headers=headers)
    else:
        response = _streamed(parts.storage, artifact, file, wanted)
    if file == WEIGHTS:
        with begin() as session:  # before a byte of it leaves
            weight_downloads.weights_fetched(session, caller, job_id, artifact.sha256)
    return response


@router.get(
    "/{job_id}/purge-receipt",
    summary="What was deleted after a job",
    responses=responses(NotFound, Conflict),
)
def purge_receipt(job_id: str, session: SessionDep, caller: JobReader) -> PurgeReceipt:
    """Return what was deleted after a job that has ended, and whether anything is still to be
    deleted.
    """
    return job_leftovers.receipt(session, caller.tenant_id, job_id)


def _whole(
    storage: Storage,
    artifact: ArtifactView,
    if_none_match: str | None,
    media_type: str,
    also: Mapping[str, str],
) -> Response:
    """Send a small file, unless the client has it."""
    tag = entity_tag(artifact.sha256)
    headers = {"ETag": tag, "Repr-Digest": _digest(artifact), **also}
    if matches(if_none_match, tag):
        return Response(status_code=NOT_MODIFIED, headers=headers)
    return Response(storage.get(artifact.key), headers=headers, media_type=media_type)


def _streamed(
    storage: Storage, artifact: ArtifactView, filename: str, wanted: str | None
) -> Response:
    """Send a file, or one range of it."""
    size = storage.size(
        artifact.key
    )  # fails here, and not in the middle of the body, where the file is lost
    headers = {
        "ETag": entity_tag(artifact.sha256),
        "Accept-Ranges": "bytes",
        "Repr-Digest": _digest(artifact),
        "Content-Disposition": f'attachment; filename="{filename}"',
    }
    try:
        part = byte_range(wanted, size)
    except Unsatisfiable:
        return Response(
            status_code=416, headers={"Content-Range": f"bytes */{size}", "Accept-Ranges": "bytes"}
        )
    if part is None:
        body, status, length = storage.stream(artifact.key), 200, size
    else:
        body, status, length = (
            storage.stream(artifact.key, part.start, part.end),
            206,
            part.end - part.start,
        )
        headers["Content-Range"] = part.content_range(size)
    headers["Content-Length"] = str(length)
    return StreamingResponse(body, status, headers, media_type="application/octet-stream")


def _digest(artifact: ArtifactView) -> str:
    """Return the SHA-256 of the whole file as RFC 9530 writes it, so that a client can check
    what it got.
    """
    return f"sha-256=:{b64encode(bytes.fromhex(artifact.sha256)).decode()}:"
