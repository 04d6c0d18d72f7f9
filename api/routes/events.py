"""What happens to a job: as a list, or live as server-sent events."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Query, Response
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool

from api.dependencies import JobReader, PartsDep
from api.listing import Limit, Listing
from api.parts import Parts
from api.problems import responses
from services import jobs
from shared.errors import NotFound
from shared.schemas.job import EventView
from shared.states import FINAL_STATES

LOOK_SECONDS = 0.5
HEARTBEAT_SECONDS = 15
RECONNECT_MILLISECONDS = 2000
BATCH = 100
FINAL_EVENTS = frozenset(f"job.{state}" for state in FINAL_STATES)
LARGEST_SEQ = 2**31 - 1

router = APIRouter(prefix="/jobs", tags=["jobs"])

Seq = Annotated[int, Query(ge=0, le=LARGEST_SEQ, description="only events with a higher seq")]


@router.get(
    "/{job_id}/events",
    summary="What happened to a job, or happens now",
    response_model=Listing[EventView],
    responses=responses(
        NotFound,
        also={
            200: {"content": {"text/event-stream": {}}},
            204: {"description": "A stream of a job that has ended, and all of whose events were seen"},
        },
    ),
)
async def events(
    job_id: str,
    parts: PartsDep,
    caller: JobReader,
    accept: Annotated[str, Header(description="text/event-stream for a live stream")] = "application/json",
    last_event_id: Annotated[int, Header(ge=0, le=LARGEST_SEQ, description="where a stream goes on")] = 0,
    after: Seq = 0,
    limit: Limit = 100,
) -> object:
    """Return the events of a job, oldest first.

    With `Accept: text/event-stream` the answer is a stream that begins with what has happened, goes on with what
    happens, and ends after the job's last event. Its ids are `seq`; a client that reconnects with `Last-Event-ID`
    misses nothing.
    """
    after = max(after, last_event_id)
    first = await run_in_threadpool(_page, parts, caller.tenant_id, job_id, after, limit)
    if "text/event-stream" not in accept:
        return first
    if not first.data and await run_in_threadpool(_ended, parts, caller.tenant_id, job_id):
        return Response(status_code=204)  # as the standard has it: tells a browser not to reconnect
    return EventSourceResponse(_stream(parts, caller.tenant_id, job_id, after), ping=HEARTBEAT_SECONDS)


def _page(parts: Parts, tenant_id: str, job_id: str, after: int, limit: int) -> Listing[EventView]:
    """Read in a short transaction: a stream may live for hours and must not hold a connection."""
    with parts.database.transaction() as session:
        page = jobs.events(session, tenant_id, job_id, after=after, limit=limit)
    return Listing(data=page.data, has_more=page.has_more)


def _ended(parts: Parts, tenant_id: str, job_id: str) -> bool:
    with parts.database.transaction() as session:
        return jobs.get(session, tenant_id, job_id).state.final


async def _stream(parts: Parts, tenant_id: str, job_id: str, after: int) -> AsyncIterator[ServerSentEvent]:
    yield ServerSentEvent(retry=RECONNECT_MILLISECONDS)
    while True:
        page = await run_in_threadpool(_page, parts, tenant_id, job_id, after, BATCH)
        for event in page.data:
            after = event.seq
            yield ServerSentEvent(event.model_dump_json(), id=str(after), event=event.type)
        if page.data and page.data[-1].type in FINAL_EVENTS:
            return
        if not page.has_more:
            await asyncio.sleep(LOOK_SECONDS)
