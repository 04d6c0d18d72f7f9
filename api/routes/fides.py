"""What the connector for Fides calls (integrations/fides)."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Body, Header, Query

from api.dependencies import JobReader, JobWriter, PartsDep, SessionDep
from api.examples import FIDES_ERASURE
from api.json_route import Route
from api.problems import refused, responses
from services.subject_requests import fides
from services.subject_requests.fides import ReplyTo
from shared.errors import Conflict, InvalidRequest, NotFound, TooLarge
from shared.schemas.base import Label, Moment
from shared.schemas.fides import FidesErasure, FidesJob

router = APIRouter(prefix="/integrations/fides/jobs", tags=["fides"], route_class=Route)

MAX_TOKEN = 8000
PrivacyRequest = Annotated[
    str, Query(pattern="^[A-Za-z0-9_-]{1,100}$", description="its id, `pri_...`")
]
ReplyPath = Annotated[
    str | None, Header(max_length=200, description="where Fides takes its call-back")
]
ReplyToken = Annotated[
    str | None, Header(max_length=MAX_TOKEN, pattern="^[!-~]+$", description="and by what token")
]


@router.post(
    "",
    status_code=202,
    summary="Submit the erasure of a privacy request",
    responses=responses(TooLarge, also=refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE)),
)
def submit(
    wanted: Annotated[FidesErasure, Body(openapi_examples=FIDES_ERASURE)],
    session: SessionDep,
    parts: PartsDep,
    caller: JobWriter,
    class_: Annotated[Label, Query(alias="class", description="what is to be forgotten")],
    privacy_request: PrivacyRequest,
    received_at: Annotated[Moment | None, Query(description="when the person asked")] = None,
    reply_to: ReplyPath = None,
    reply_to_token: ReplyToken = None,
) -> FidesJob:
    """Make a job. The class is a parameter and the rest the body, so that what a person typed
    cannot add fields.
    """
    if (reply_to is None) != (reply_to_token is None):
        raise InvalidRequest.at(
            "", "has one of the headers reply-to and reply-to-token; send both or neither"
        )
    wants_call = (
        None if reply_to is None or reply_to_token is None else ReplyTo(reply_to, reply_to_token)
    )
    return fides.submit(
        session,
        caller.tenant_id,
        wanted,
        parts.settings,
        class_=class_,
        privacy_request=privacy_request,
        received_at=received_at,
        reply_to=wants_call,
    )


@router.get("/{job_id}", summary="How far an erasure is", responses=responses(NotFound, Conflict))
def status(job_id: str, session: SessionDep, caller: JobReader) -> FidesJob:
    """Return the status; 409 once the job has failed or was cancelled, so that Fides does not
    wait for it.
    """
    return fides.status(session, caller.tenant_id, job_id)
