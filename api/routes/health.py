"""Whether the service lives, and whether it can work. The only routes that need no key."""

import asyncio
from collections.abc import Callable
from functools import partial

import structlog
from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Response
from sqlalchemy import text

import migrations
from api.dependencies import PartsDep
from api.json_route import Route
from api.parts import Parts
from services.fleet import health
from shared.schemas.health import Live, Owed, Ready, State

router = APIRouter(prefix="/health", tags=["health"], route_class=Route)

log = structlog.get_logger()


@router.get("/live", summary="Is the process alive?")
async def live() -> Live:
    """Say yes. Where this does not answer, restart the process. The event loop says it: no
    thread is waited for.
    """
    return Live()


@router.get(
    "/ready",
    summary="Can it work?",
    responses={503: {"model": Ready, "description": "A part is down"}},
)
async def ready(parts: PartsDep, response: Response) -> Ready:
    """Try Postgres and its schema, Redis and the object storage. 503 names what is down; the log
    says why.

    Nothing is written anywhere, and what was found is told again for two seconds: strangers may
    ask as often as they like. What is amiss beside this gateway (no relay, no worker, no signing
    key) is in `notes`, and the answer stays 200."""
    found = await parts.readiness.get(partial(_look, parts))
    if found.status == "down":
        response.status_code = 503
    return found


async def _look(parts: Parts) -> Ready:
    threads = CapacityLimiter(
        len(CHECKS)
    )  # of its own: what everybody shares may be what is waited for
    looks = (to_thread.run_sync(_state, name, parts, limiter=threads) for name in CHECKS)
    states = dict(zip(CHECKS, await asyncio.gather(*looks), strict=True))
    if "down" in states.values():
        return Ready(status="down", checks=states)
    found = await to_thread.run_sync(_beside, parts, limiter=threads)
    owed = Owed.model_validate(found.owed, from_attributes=True)
    return Ready(
        status="degraded" if found.notes else "up",
        checks=states,
        notes=list(found.notes),
        owed=owed,
    )


def _beside(parts: Parts) -> health.Findings:
    with parts.database.transaction() as session:
        return health.look(session)


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
    parts.storage.ping()


CHECKS: dict[str, Callable[[Parts], None]] = {
    "postgres": _postgres,
    "migrations": _migrations,
    "redis": _redis,
    "storage": _storage,
}
