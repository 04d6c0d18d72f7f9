"""Erasure jobs: submit, list, look, cancel."""

from datetime import datetime
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Header, Query, Response
from pydantic import AfterValidator
from sqlalchemy.orm import Session

from api.conditional import entity_tag, matches
from api.dependencies import BeginDep, JobReader, JobWriter, PartsDep, SessionDep
from api.examples import JOB_REQUESTS
from api.idempotency import SenderDep, respond
from api.json_route import JSON, Route
from api.listing import After, Limit, Listing, Text
from api.problems import refused, responses
from services.access.idempotency import Answer, once
from services.jobs import controller_decisions, ending, queries, submission, validation
from shared.errors import Conflict, IdempotencyKeyReused, NotFound, TooLarge
from shared.schemas.base import Moment
from shared.schemas.deadline import Reason
from shared.schemas.job import JobDraft, JobView, MetricSeries
from shared.schemas.request import ErasureRequest, MethodName
from shared.states import JobState

POLL_SECONDS = 2
"""What Retry-After says while a job has not ended."""

Verdict = Literal["passed", "failed"]


def _with_a_zone(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("must say its time zone, e.g. 2026-11-02T09:00:00Z")
    return moment


Instant = Annotated[Moment, AfterValidator(_with_a_zone)]

EXISTING = {"Efface-Existing-Job": "true"}

router = APIRouter(prefix="/jobs", tags=["jobs"], route_class=Route)

IfNoneMatch = Annotated[
    str | None, Header(description="an ETag that was given before; 304 if it is still right")
]


@router.post(
    "",
    status_code=202,
    summary="Submit an erasure request",
    response_model=JobView,
    responses=responses(
        TooLarge,
        Conflict,
        IdempotencyKeyReused,
        also={
            200: {
                "model": JobView | JobDraft,
                "description": (
                    "a job that was there; or, with validate_only, what would come of the request"
                ),
            }
        }
        | refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE),
    ),
)
def submit(
    request: Annotated[ErasureRequest, Body(openapi_examples=JOB_REQUESTS)],
    begin: BeginDep,
    parts: PartsDep,
    caller: JobWriter,
    sender: SenderDep,
    validate_only: Annotated[bool, Query(description="check everything, but make no job")] = False,
    hold: Annotated[
        Reason | None, Query(description="put it on hold from the start, for this reason")
    ] = None,
) -> Response:
    """Check the request, and queue a job for it. What can be checked is checked now: an accepted
    job is a sound one.

    A request with an `external_id` that asks for an erasure which the tenant has asked for
    already is answered 200 with the job that is there, and `Efface-Existing-Job: true`."""

    def submitted(session: Session) -> Answer:
        if validate_only:
            return _answer(
                submission.validated(session, caller.tenant_id, request, parts.settings, local)
            )
        job = submission.submit(session, caller.tenant_id, request, parts.settings, local)
        if hold is not None and not job.existing:
            job = controller_decisions.hold(session, caller.tenant_id, job.id, hold)
        return _answer(job)

    def asked() -> dict[str, Any]:
        return {"request": request.model_dump(mode="json", exclude_unset=True), "hold": hold}

    local = validation.read_local(request, parts.settings)  # before there is a transaction
    call = (
        None if validate_only else sender.call(asked)
    )  # checking makes nothing that could be made twice
    with begin() as session:
        answer = once(
            session, call, partial(submitted, session), parts.settings.idempotency_seconds
        )
    return respond(answer)


def _answer(job: JobView | JobDraft) -> Answer:
    body = job.model_dump_json()
    if isinstance(job, JobDraft):
        return Answer(200, body, {})
    location = {"Location": f"/jobs/{job.id}"}
    if job.existing:
        return Answer(200, body, location | EXISTING)
    return Answer(202, body, location | {"Retry-After": str(POLL_SECONDS)})


@router.get(
    "",
    summary="List jobs, newest first or by due date",
    response_model=Listing[JobView],
    responses=responses(),
)
def list_jobs(
    session: SessionDep,
    caller: JobReader,
    state: JobState | None = None,
    method: MethodName | None = None,
    model: Annotated[Text, Query(description="id of the model that is edited")] = None,
    external_id: Text = None,
    unfinished: Annotated[
        bool | None, Query(description="true: only queued and running ones; false: the others")
    ] = None,
    verdict: Verdict | None = None,
    due_before: Instant | None = None,
    created_after: Instant | None = None,
    received_from: Instant | None = None,
    q: Annotated[
        Text, Query(description="text in the id, the external id, the class or the subgroup")
    ] = None,
    sort: Annotated[
        Literal["newest", "due"], Query(description="due: what is due first comes first")
    ] = "newest",
    after: After = None,
    limit: Limit = 20,
) -> Response:
    """Return a page of jobs, narrowed by any of the filters."""
    wanted = queries.JobFilter(
        state=state,
        method=method,
        model_id=model,
        external_id=external_id,
        unfinished=unfinished,
        verdict=verdict,
        due_before=due_before,
        created_after=created_after,
        received_from=received_from,
        text=q,
        by_due=sort == "due",
    )
    page = queries.list_page(session, caller.tenant_id, wanted, after=after, limit=limit)
    listing = Listing[JobView](data=page.data, has_more=page.has_more)
    # rendered here, in the route's own thread: a hundred requests of a megabyte would keep
    # everybody waiting
    return Response(listing.model_dump_json(by_alias=True), media_type=JSON)


@router.get(
    "/{job_id}",
    summary="Look at a job",
    response_model=JobView,
    responses=responses(NotFound, also={304: {"description": "It has not changed since the ETag"}}),
)
def get_job(
    job_id: str,
    begin: BeginDep,
    caller: JobReader,
    response: Response,
    if_none_match: IfNoneMatch = None,
) -> Any:  # noqa: ANN401 - a job, or 304 without one
    """Return a job. Poll with If-None-Match, as often as Retry-After says; there is none once
    the job has ended.
    """
    with begin() as session:
        job = queries.get(session, caller.tenant_id, job_id)
    tag = entity_tag(job.version)
    headers = {"ETag": tag} if job.state.final else {"ETag": tag, "Retry-After": str(POLL_SECONDS)}
    if matches(if_none_match, tag):
        return Response(status_code=304, headers=headers)
    response.headers.update(headers)
    return job


@router.post("/{job_id}/cancel", summary="Cancel a job", responses=responses(NotFound, Conflict))
def cancel(job_id: str, session: SessionDep, caller: JobWriter) -> JobView:
    """Cancel a job: at once while it waits, within a heartbeat while it runs. Doing it twice
    changes nothing.
    """
    return ending.cancel(session, caller.tenant_id, job_id)


@router.get(
    "/{job_id}/metrics", summary="What was measured, step by step", responses=responses(NotFound)
)
def metrics(job_id: str, session: SessionDep, caller: JobReader) -> Listing[MetricSeries]:
    """Return every series that the method reported so far."""
    return Listing(data=queries.metrics(session, caller.tenant_id, job_id), has_more=False)
