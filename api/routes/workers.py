"""Workers and relays: who lives, who works, how confined and how well they hear."""

from fastapi import APIRouter

from api.dependencies import Admin, SessionDep
from api.json_route import Route
from api.problems import responses
from services.fleet import processes
from shared.schemas.worker import WorkerList

router = APIRouter(prefix="/workers", tags=["service"], route_class=Route)


@router.get("", summary="List workers and relays", responses=responses())
def list_workers(session: SessionDep, caller: Admin) -> WorkerList:
    """Return every process that has said that it lives, the whole service's. A job is named
    where it is your tenant's.
    """
    return WorkerList(data=list(processes.views(session, caller.tenant_id)))
