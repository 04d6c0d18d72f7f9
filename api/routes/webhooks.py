"""Webhooks: endpoints that are called when something happens to a job, and what was delivered to
them.
"""

from typing import Annotated

from fastapi import APIRouter, Body, Query, Response
from starlette.concurrency import run_in_threadpool

from api.dependencies import Admin, BeginDep, PartsDep, SessionDep
from api.examples import WEBHOOK
from api.json_route import Route
from api.listing import After, Limit, Listing
from api.problems import responses
from services.webhooks import deliveries, endpoints
from shared.errors import Conflict, NotFound
from shared.schemas.webhook import DeliveryView, WebhookRegistration, WebhookView, WebhookWithSecret
from shared.states import DeliveryState

router = APIRouter(prefix="/webhooks", tags=["webhooks"], route_class=Route)


@router.post("", status_code=201, summary="Register a webhook", responses=responses(Conflict))
async def register(
    wanted: Annotated[WebhookRegistration, Body(openapi_examples=WEBHOOK)],
    begin: BeginDep,
    parts: PartsDep,
    caller: Admin,
    response: Response,
) -> WebhookWithSecret:
    """Register an endpoint. Its secret is in this answer and in none that follows."""

    def registered() -> WebhookWithSecret:
        with begin() as session:
            return endpoints.register(session, caller.tenant_id, wanted, parts.settings)

    outbound = endpoints.outbound(parts.settings)
    await parts.lookups.run(caller.tenant_id, endpoints.check_url, wanted.url, outbound)
    webhook = await run_in_threadpool(registered)
    response.headers["Location"] = f"/webhooks/{webhook.id}"
    response.headers["Cache-Control"] = "no-store"
    return webhook


@router.get("", summary="List webhooks, newest first", responses=responses())
def list_webhooks(
    session: SessionDep, caller: Admin, after: After = None, limit: Limit = 20
) -> Listing[WebhookView]:
    """Return a page of endpoints."""
    page = endpoints.list_page(session, caller.tenant_id, after=after, limit=limit)
    return Listing(data=page.data, has_more=page.has_more)


@router.get("/{webhook_id}", summary="Look at a webhook", responses=responses(NotFound))
def get_webhook(webhook_id: str, session: SessionDep, caller: Admin) -> WebhookView:
    """Return an endpoint, without its secret."""
    return endpoints.get(session, caller.tenant_id, webhook_id)


@router.delete(
    "/{webhook_id}", status_code=204, summary="Delete a webhook", responses=responses(NotFound)
)
def delete_webhook(webhook_id: str, session: SessionDep, caller: Admin) -> None:
    """Delete an endpoint with its secrets, and all that was and is to be delivered to it."""
    endpoints.delete(session, caller.tenant_id, webhook_id)


@router.post(
    "/{webhook_id}/rotate", summary="Give a webhook a new secret", responses=responses(NotFound)
)
def rotate(
    webhook_id: str, session: SessionDep, parts: PartsDep, caller: Admin, response: Response
) -> WebhookWithSecret:
    """Make a new secret. For a while each call is signed with the one before, too."""
    response.headers["Cache-Control"] = "no-store"
    return endpoints.rotate(session, caller.tenant_id, webhook_id, parts.settings)


@router.get("/{webhook_id}/deliveries", summary="What was delivered", responses=responses(NotFound))
def list_deliveries(
    webhook_id: str,
    session: SessionDep,
    caller: Admin,
    state: Annotated[DeliveryState | None, Query(description="only those in this state")] = None,
    after: After = None,
    limit: Limit = 20,
) -> Listing[DeliveryView]:
    """Return a page of calls, newest first, each with its tries."""
    page = deliveries.list_page(
        session, caller.tenant_id, webhook_id, state=state, after=after, limit=limit
    )
    return Listing(data=page.data, has_more=page.has_more)


@router.post(
    "/{webhook_id}/deliveries/{delivery_id}/replay",
    status_code=202,
    summary="Deliver once more",
    responses=responses(NotFound, Conflict),
)
def replay(webhook_id: str, delivery_id: str, session: SessionDep, caller: Admin) -> DeliveryView:
    """Make a call again, whatever came of it, under the same id: a receiver that has seen it may
    drop it.
    """
    return deliveries.replay(session, caller.tenant_id, webhook_id, delivery_id)
