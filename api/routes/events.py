"""What happens to a job: as a list, or live as server-sent events."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Header, HTTPException, Query, Request, Response
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool

from api.conditional import HEAD
from api.dependencies import JobReader, PartsDep
from api.json_route import Route
from api.listing import Limit, Listing
from api.parts import Parts
from api.problems import responses
from api.streams import Stream
from services.jobs import queries
from services.jobs.queries import Look
from shared.errors import NotFound
from shared.schemas.job import EventView

HEARTBEAT_SECONDS = 15
SEND_SECONDS = 30
"""A client that takes nothing for so long is given up."""
RECONNECT_MILLISECONDS = 2000
LARGEST_SEQ = 2**31 - 1

router = APIRouter(prefix="/jobs", tags=["jobs"], route_class=Route)

Seq = Annotated[int, Query(ge=0, le=LARGEST_SEQ, description="only events with a higher seq")]


async def _closing() -> AsyncIterator[AsyncExitStack]:
    """Give what is left when the answer has been sent, or its client has gone."""
    async with AsyncExitStack() as stack:
        yield stack


@router.get(
    "/{job_id}/events",
    summary="What happened to a job, or happens now",
    response_model=Listing[EventView],
    responses=responses(
        NotFound,
        also={
            200: {"content": {"text/event-stream": {}}},
            204: {
                "description": "A stream of a job that has ended, and all of whose events were seen"
            },
        },
    ),
)
async def events(
    job_id: str,
    request: Request,
    parts: PartsDep,
    caller: JobReader,
    closing: Annotated[AsyncExitStack, Depends(_closing)],
    accept: Annotated[
        str, Header(description="text/event-stream for a live stream")
    ] = "application/json",
    last_event_id: Annotated[
        int, Header(ge=0, le=LARGEST_SEQ, description="where a stream goes on")
    ] = 0,
    after: Seq = 0,
    limit: Limit = 100,
) -> object:
    """Return the events of a job, oldest first.

    With `Accept: text/event-stream` the answer is a stream that begins with what has happened,
    goes on with what happens, and ends after the job's last event. Its ids are `seq`; a client
    that reconnects with `Last-Event-ID` misses nothing. It has to after an hour, when every
    stream ends; one whose key is revoked ends within seconds."""
    after = max(after, last_event_id)
    live = "text/event-stream" in accept
    if live and request.scope.get(HEAD):
        raise HTTPException(HTTPStatus.METHOD_NOT_ALLOWED)
    first = await run_in_threadpool(
        _look, parts, caller.tenant_id, job_id, after, 1 if live else limit
    )
    if not live:
        return Listing(data=first.events, has_more=first.has_more)
    if first.ended and not first.events:
        return Response(status_code=204)  # as the standard has it: tells a browser not to reconnect
    stream = closing.enter_context(
        parts.streams.opened(caller.tenant_id, job_id, request.state.credential)
    )
    return EventSourceResponse(
        _messages(stream, after), ping=HEARTBEAT_SECONDS, send_timeout=SEND_SECONDS
    )


def _look(parts: Parts, tenant_id: str, job_id: str, after: int, limit: int) -> Look:
    with parts.database.transaction() as session:
        return queries.look(session, tenant_id, job_id, after=after, limit=limit)


async def _messages(stream: Stream, after: int) -> AsyncIterator[ServerSentEvent]:
    yield ServerSentEvent(retry=RECONNECT_MILLISECONDS)
    async for event in stream.events(after):
        yield ServerSentEvent(event.model_dump_json(), id=str(event.seq), event=event.type)
