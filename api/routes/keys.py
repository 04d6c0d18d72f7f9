"""API keys of one's own tenant, for its admins."""

from typing import Annotated

from fastapi import APIRouter, Body, Query, Response

from api.dependencies import Admin, PartsDep, SessionDep
from api.examples import KEY_REQUEST, KEY_ROTATION
from api.json_route import Route
from api.listing import After, Limit, Listing
from api.problems import responses
from services.access import api_keys
from shared.errors import Conflict, NotFound
from shared.schemas.key import KeyRequest, KeyView, NewKey, RotationRequest

NO_STORE = {"Cache-Control": "no-store"}
"""An answer that holds a secret stays in nobody's cache."""

WithChildren = Annotated[
    bool,
    Query(
        description=(
            "also the keys that it made or rotated, and those that these did, to the last one"
        )
    ),
]

router = APIRouter(prefix="/keys", tags=["keys"], route_class=Route)


@router.post("", status_code=201, summary="Make a key", responses=responses())
def create(
    request: Annotated[KeyRequest, Body(openapi_examples=KEY_REQUEST)],
    session: SessionDep,
    caller: Admin,
    response: Response,
) -> NewKey:
    """Make a key. Its secret is in this answer and nowhere else."""
    key, secret = api_keys.create_for(
        session,
        caller.tenant_id,
        name=request.name,
        scopes=request.scopes,
        expires_at=request.expires_at,
        made_by=caller.key_id,
    )
    response.headers.update(NO_STORE | {"Location": f"/keys/{key.id}"})
    return api_keys.with_secret(key, secret)


@router.get("", summary="List keys, newest first", responses=responses())
def list_keys(
    session: SessionDep, caller: Admin, after: After = None, limit: Limit = 20
) -> Listing[KeyView]:
    """Return a page of keys, also of those that no longer work."""
    page = api_keys.list_page(session, caller.tenant_id, after=after, limit=limit)
    return Listing(data=page.data, has_more=page.has_more)


@router.get("/{key_id}", summary="Look at a key", responses=responses(NotFound))
def get_key(key_id: str, session: SessionDep, caller: Admin) -> KeyView:
    """Return a key, without its secret."""
    return api_keys.get(session, caller.tenant_id, key_id)


@router.post(
    "/{key_id}/rotate", summary="Give a key a new secret", responses=responses(NotFound, Conflict)
)
def rotate(
    key_id: str,
    request: Annotated[RotationRequest, Body(openapi_examples=KEY_ROTATION)],
    session: SessionDep,
    parts: PartsDep,
    caller: Admin,
    response: Response,
) -> NewKey:
    """Give a key a new secret, and let the old one work for a while; the one before that ends at
    once.
    """
    grace = (
        parts.settings.key_grace_seconds if request.grace_seconds is None else request.grace_seconds
    )
    key, secret = api_keys.rotate(
        session,
        key_id,
        tenant_id=caller.tenant_id,
        grace_seconds=grace,
        expires_at=request.expires_at,
        rotated_by=caller.key_id,
    )
    response.headers.update(NO_STORE)
    return api_keys.with_secret(key, secret)


@router.post("/{key_id}/revoke", summary="Revoke a key", responses=responses(NotFound))
def revoke(
    key_id: str, session: SessionDep, caller: Admin, with_children: WithChildren = False
) -> KeyView:
    """Revoke a key and its access tokens, at once. Doing it twice changes nothing.

    With `with_children` the keys that it made or rotated go, too, and those that these made:
    whoever stole it may hold their secrets."""
    if with_children:
        return api_keys.view(api_keys.revoke_with_children(session, key_id, caller.tenant_id)[0])
    return api_keys.view(api_keys.revoke(session, key_id, caller.tenant_id))
