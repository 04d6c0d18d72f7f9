"""What happens to a job: as a list, or live as server-sent events."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, NamedTuple

from fastapi import APIRouter, Header, Query, Response
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool

from api.dependencies import JobReader, PartsDep
from api.json_route import Route
from api.listing import Limit, Listing
from api.parts import Parts
from api.problems import responses
from services import jobs
from shared.errors import NotFound
from shared.schemas.job import EventView

LOOK_SECONDS = 0.5
HEARTBEAT_SECONDS = 15
RECONNECT_MILLISECONDS = 2000
BATCH = 100
LARGEST_SEQ = 2**31 - 1

router = APIRouter(prefix="/jobs", tags=["jobs"], route_class=Route)

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
    if "text/event-stream" not in accept:
        return (await run_in_threadpool(_look, parts, caller.tenant_id, job_id, after, limit)).page
    first = await run_in_threadpool(_look, parts, caller.tenant_id, job_id, after, BATCH)
    if first.ended and not first.page.data:
        return Response(status_code=204)  # as the standard has it: tells a browser not to reconnect
    return EventSourceResponse(_stream(parts, caller.tenant_id, job_id, after), ping=HEARTBEAT_SECONDS)


class _Look(NamedTuple):
    page: Listing[EventView]
    ended: bool
    """True if the job had ended before the page was read: what is not in it will never come."""


def _look(parts: Parts, tenant_id: str, job_id: str, after: int, limit: int) -> _Look:
    """Read in a short transaction: a stream may live for hours and must not hold a connection."""
    with parts.database.transaction() as session:
        ended = jobs.get(session, tenant_id, job_id).state.final
        page = jobs.events(session, tenant_id, job_id, after=after, limit=limit)
    return _Look(Listing(data=page.data, has_more=page.has_more), ended)


async def _stream(parts: Parts, tenant_id: str, job_id: str, after: int) -> AsyncIterator[ServerSentEvent]:
    yield ServerSentEvent(retry=RECONNECT_MILLISECONDS)
    while True:
        page, ended = await run_in_threadpool(_look, parts, tenant_id, job_id, after, BATCH)
        for event in page.data:
            after = event.seq
            yield ServerSentEvent(event.model_dump_json(), id=str(after), event=event.type)
        if page.has_more:
            continue
        if ended:
            return
        await asyncio.sleep(LOOK_SECONDS)
