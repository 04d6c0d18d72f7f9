"""One erasure: what happened to it, what was measured, what can be done next, and as it happens."""

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack
from http import HTTPStatus
from typing import Annotated, NamedTuple

from fastapi import APIRouter, Depends, Header, HTTPException, Request, Response
from pydantic import ValidationError
from sqlalchemy.orm import Session
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool

from api.conditional import HEAD
from api.console import advice, words
from api.console.advice import Judged
from api.console.page import Page
from api.console.rendering import render
from api.dependencies import Begin, BeginDep, JobReader, PartsDep
from api.parts import Parts
from api.routes.events import HEARTBEAT_SECONDS, LARGEST_SEQ, RECONNECT_MILLISECONDS, SEND_SECONDS
from api.streams import Stream
from services.catalog import names
from services.certificates import issuing
from services.jobs import queries, weight_downloads
from services.purging import job_leftovers
from shared.errors import Conflict, EffaceError, Gone
from shared.ports.object_storage import ObjectMissing
from shared.schemas.job import EventView, JobView
from shared.schemas.model import FetchView
from shared.schemas.purge import PurgeReceipt
from shared.schemas.report import Report
from shared.states import FINAL_STATES, JobState

router = APIRouter(prefix="/erasures/{job_id}", route_class=Page)

BATCH = 1000
ENDS = frozenset(f"job.{state}" for state in FINAL_STATES)
SHOWN = 300
"""Events on a page; what came before them is in `/jobs/{id}/events`."""


class Found(NamedTuple):
    """What the database knows of an erasure."""

    job: JobView
    events: Sequence[EventView]
    left_out: int
    last_seq: int
    model: str | None
    """The name of the model that is edited."""
    datasets: dict[str, str]
    report_key: str | None
    has_page: bool
    certificate: bool
    certificate_awaited: bool
    weights: bool
    fetches: Sequence[FetchView]
    receipt: PurgeReceipt | None


@router.get("")
def erasure(
    job_id: str, request: Request, begin: BeginDep, parts: PartsDep, caller: JobReader
) -> Response:
    """Show everything about one erasure."""
    return _page(request, begin, parts, caller.tenant_id, job_id, "erasure.html")


@router.get("/live")
def live(
    job_id: str, request: Request, begin: BeginDep, parts: PartsDep, caller: JobReader
) -> Response:
    """Return the part of the page that changes, for htmx."""
    return _page(request, begin, parts, caller.tenant_id, job_id, "erasure_live.html")


async def _closing() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@router.get("/events")
async def events(
    job_id: str,
    request: Request,
    parts: PartsDep,
    caller: JobReader,
    closing: Annotated[AsyncExitStack, Depends(_closing)],
    after: int = 0,
    last_event_id: Annotated[int, Header(ge=0, le=LARGEST_SEQ)] = 0,
) -> object:
    """Say that there is news, as server-sent events, until the erasure or the session ends."""
    if request.scope.get(HEAD):
        raise HTTPException(HTTPStatus.METHOD_NOT_ALLOWED)
    seen = max(0, min(after, LARGEST_SEQ), last_event_id)
    first = await run_in_threadpool(_look, parts, caller.tenant_id, job_id, seen)
    if first.ended and not first.events:
        return Response(status_code=204)
    stream = closing.enter_context(
        parts.streams.opened(caller.tenant_id, job_id, request.state.credential)
    )
    return EventSourceResponse(
        _news(stream, seen), ping=HEARTBEAT_SECONDS, send_timeout=SEND_SECONDS
    )


def _look(parts: Parts, tenant_id: str, job_id: str, after: int) -> queries.Look:
    with parts.database.transaction() as session:
        return queries.look(session, tenant_id, job_id, after=after, limit=1)


async def _news(stream: Stream, after: int) -> AsyncIterator[ServerSentEvent]:
    yield ServerSentEvent(retry=RECONNECT_MILLISECONDS)
    async for event in stream.events(after):
        yield ServerSentEvent(event.type, id=str(event.seq), event="news")
        if event.type in ENDS:  # a browser that is not told would ask again and again
            yield ServerSentEvent(event.type, id=str(event.seq), event="ended")


def _page(
    request: Request, begin: Begin, parts: Parts, tenant_id: str, job_id: str, template: str
) -> Response:
    with begin() as session:
        found = _find(session, tenant_id, job_id)
    report = _report(parts, found.report_key)
    judged = advice.judged(report) if report else []
    job = found.job
    return render(
        request,
        template,
        **found._asdict(),
        title=words.target(job.request),
        report=report,
        judged=judged,
        next_steps=_next_steps(job, judged),
        decisions=[words.DECISIONS[verb] for verb in possible(job)],
        as_json=_json(job),
        done=request.query_params.get("done", ""),
        base_url=(parts.settings.public_url or str(request.base_url)).rstrip("/"),
    )


def _find(session: Session, tenant_id: str, job_id: str) -> Found:
    job = queries.get(session, tenant_id, job_id)
    shown, last_seq, left_out = _events(session, tenant_id, job_id)
    artifacts = {
        a.name: a for a in queries.artifacts(session, tenant_id, job_id) if a.removed_at is None
    }
    report = artifacts.get("report.json")
    request = job.request
    model = request.model.id if request else None
    ids = {reference for _, _, reference in advice.given_sets(request)} if request else set()
    return Found(
        job=job,
        events=shown,
        left_out=left_out,
        last_seq=last_seq,
        model=names.of_models(session, tenant_id, {model}).get(model) if model else None,
        datasets=names.of_datasets(session, tenant_id, ids),
        report_key=report.key if report else None,
        has_page="report.html" in artifacts,
        certificate=_has_certificate(session, tenant_id, job_id),
        certificate_awaited=job.verdict is not None,
        weights="model/open_clip_model.safetensors" in artifacts,
        fetches=weight_downloads.fetches(session, tenant_id, job.result_model)
        if job.result_model
        else (),
        receipt=job_leftovers.receipt(session, tenant_id, job_id) if job.state.final else None,
    )


def _events(session: Session, tenant_id: str, job_id: str) -> tuple[list[EventView], int, int]:
    """Return what happened, the last seq, and how many entries are left out at the beginning.
    Steps only move the bar.
    """
    found: list[EventView] = []
    last, more = 0, True
    while more:
        page = queries.events(session, tenant_id, job_id, after=last, limit=BATCH)
        found += [event for event in page.data if event.type != "job.progress"]
        last, more = page.data[-1].seq if page.data else last, page.has_more
    return found[-SHOWN:], last, max(0, len(found) - SHOWN)


def _has_certificate(session: Session, tenant_id: str, job_id: str) -> bool:
    try:
        issuing.find(session, tenant_id, job_id)
    except (Conflict, Gone):
        return False
    return True


def _report(parts: Parts, key: str | None) -> Report | None:
    """Return the report; None where there is none, or one of another version, which its own page
    can still show.
    """
    if key is None:
        return None
    try:
        return Report.model_validate_json(parts.storage.get(key))
    except (ValidationError, ObjectMissing, EffaceError):
        return None


def possible(job: JobView) -> Iterator[str]:
    """Yield what may be decided about an erasure as it stands."""
    if job.state.final:
        return
    if job.hold is not None:
        yield "release"
    elif job.state is JobState.QUEUED:
        yield "hold"
    if job.extension is None:
        yield "extend"
    if not job.cancel_requested:
        yield "refuse"
        yield "cancel"


def _next_steps(job: JobView, judged: Sequence[Judged]) -> list[advice.Step]:
    if job.state is not JobState.FAILED or job.request is None:
        return []
    return list(advice.next_steps(job.request, judged))


def _json(job: JobView) -> str | None:
    if job.request is None:
        return None
    return json.dumps(
        job.request.model_dump(mode="json", exclude_unset=True), indent=2, ensure_ascii=False
    )
