"""What a controller rules on a request before its job ends: hold, release, extend, refuse."""

from typing import Annotated

from fastapi import APIRouter, Body

from api.dependencies import JobWriter, PartsDep, SessionDep
from api.examples import EXTENSION, HOLD, REFUSAL
from api.json_route import Route
from api.problems import responses
from services.jobs import controller_decisions
from shared.errors import Conflict, NotFound
from shared.schemas.deadline import ExtensionRequest, HoldRequest, RefusalRequest
from shared.schemas.job import JobView

router = APIRouter(prefix="/jobs/{job_id}", tags=["deadlines"], route_class=Route)


@router.post("/hold", summary="Stop the clock", responses=responses(NotFound, Conflict))
def hold(
    job_id: str,
    wanted: Annotated[HoldRequest, Body(openapi_examples=HOLD)],
    session: SessionDep,
    caller: JobWriter,
) -> JobView:
    """Keep workers away from a queued job while the data subject's identity is in doubt. Twice
    changes nothing.
    """
    return controller_decisions.hold(session, caller.tenant_id, job_id, wanted.reason)


@router.post("/release", summary="Let the clock go on", responses=responses(NotFound, Conflict))
def release(job_id: str, session: SessionDep, parts: PartsDep, caller: JobWriter) -> JobView:
    """End a hold. Whole days on hold move the due date."""
    return controller_decisions.release(session, caller.tenant_id, job_id, parts.settings)


@router.post("/extend", summary="Extend the period", responses=responses(NotFound, Conflict))
def extend(
    job_id: str,
    wanted: Annotated[ExtensionRequest, Body(openapi_examples=EXTENSION)],
    session: SessionDep,
    parts: PartsDep,
    caller: JobWriter,
) -> JobView:
    """Extend the period by two further months, once, before the first month is over."""
    return controller_decisions.extend(
        session, caller.tenant_id, job_id, wanted.reason, parts.settings
    )


@router.post("/refuse", summary="Refuse the erasure", responses=responses(NotFound, Conflict))
def refuse(
    job_id: str,
    ruling: Annotated[RefusalRequest, Body(openapi_examples=REFUSAL)],
    session: SessionDep,
    caller: JobWriter,
) -> JobView:
    """End a job because the request is not acted on. It is cancelled, and says on what ground."""
    return controller_decisions.refuse(session, caller.tenant_id, job_id, ruling)
