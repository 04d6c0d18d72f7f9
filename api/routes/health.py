"""Whether the service lives, and whether it can work. The only routes that need no key."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Literal

import structlog
from fastapi import APIRouter, Response
from pydantic import BaseModel
from sqlalchemy import text

import migrations
from api.dependencies import PartsDep
from api.json_route import Route
from api.parts import Parts
from shared.storage import ObjectMissing

router = APIRouter(prefix="/health", tags=["health"], route_class=Route)

State = Literal["up", "down"]

log = structlog.get_logger()


class Live(BaseModel):
    """The process answers."""

    status: Literal["up"] = "up"


class Ready(BaseModel):
    """What the service stands on, part by part."""

    status: State
    checks: dict[str, State]


@router.get("/live", summary="Is the process alive?")
def live() -> Live:
    """Say yes. Where this does not answer, restart the process."""
    return Live()


@router.get("/ready", summary="Can it work?", responses={503: {"model": Ready, "description": "A part is down"}})
def ready(parts: PartsDep, response: Response) -> Ready:
    """Try Postgres and its schema, Redis and the object storage. 503 names what is down; the log says why."""
    with ThreadPoolExecutor(len(CHECKS)) as pool:
        states = dict(zip(CHECKS, pool.map(lambda name: _state(name, parts), CHECKS), strict=True))
    if "down" in states.values():
        response.status_code = 503
        return Ready(status="down", checks=states)
    return Ready(status="up", checks=states)


def _state(name: str, parts: Parts) -> State:
    try:
        CHECKS[name](parts)
    except Exception as error:  # whatever a driver raises, the part is down
        log.warning("health.part_down", part=name, error=str(error))
        return "down"
    return "up"


def _postgres(parts: Parts) -> None:
    with parts.database.engine.connect() as connection:
        connection.execute(text("SELECT 1"))


def _migrations(parts: Parts) -> None:
    with parts.database.engine.connect() as connection:
        if not migrations.is_current(connection):
            raise RuntimeError("the schema is not that of this version; run 'efface migrate'")


def _redis(parts: Parts) -> None:
    parts.doorbell.ping()


def _storage(parts: Parts) -> None:
    with suppress(ObjectMissing):  # another replica's check has just deleted the same object
        parts.storage.ping()


CHECKS: dict[str, Callable[[Parts], None]] = {
    "postgres": _postgres,
    "migrations": _migrations,
    "redis": _redis,
    "storage": _storage,
}
