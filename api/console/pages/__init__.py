"""The pages, one module each."""

from fastapi import APIRouter

from api.console import PREFIX, static
from api.console.page import Page
from api.console.pages import (
    datasets,
    erasure,
    erasures,
    models,
    new_erasure,
    outcome,
    records,
    rulings,
    service,
    sign_in,
)
from shared.errors import NotFound

router = APIRouter(include_in_schema=False)
for _module in (
    sign_in,
    erasures,
    new_erasure,
    outcome,
    rulings,
    erasure,
    models,
    datasets,
    records,
    service,
):
    router.include_router(_module.router, prefix=PREFIX)
router.include_router(static.router)

_others = APIRouter(route_class=Page)


@_others.get("/{path:path}")
async def unknown(path: str) -> None:
    """Say that there is no such page.

    Raises:
        NotFound: always.
    """
    raise NotFound("page", f"/{path}", listed=f"{PREFIX}/ in a browser")


router.include_router(_others, prefix=PREFIX)
