"""The service, for administrators: who works, what waits, what is owed, what is used."""

from typing import Any

from fastapi import APIRouter, Request, Response

from api.console.page import Page
from api.console.rendering import render
from api.dependencies import Admin, BeginDep, PartsDep
from services.access import api_keys, quotas
from services.fleet import processes
from services.jobs import queries, queue_stats
from services.jobs.queries import JobFilter

router = APIRouter(prefix="/service", route_class=Page)

WAITING = 20


@router.get("")
def service(request: Request, begin: BeginDep, parts: PartsDep, caller: Admin) -> Response:
    """Show how the service is doing. Counts are of all tenants; erasures, keys and storage are
    the tenant's own.
    """
    waiting = JobFilter(unfinished=True, by_due=True)
    with begin() as session:
        known: dict[str, Any] = {
            "workers": processes.views(session, caller.tenant_id),
            "census": queue_stats.take(session),
            "stored": quotas.stored(session, caller.tenant_id),
            "jobs": queries.list_page(session, caller.tenant_id, waiting, limit=WAITING).data,
            "keys": api_keys.list_page(session, caller.tenant_id, limit=100).data,
        }
    return render(request, "service.html", settings=parts.settings, **known)
