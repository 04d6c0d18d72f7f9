"""The application."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from fastapi import FastAPI

from api import VERSION, problems
from api.boundary import Authentication, Boundary
from api.parts import opened
from api.routes import (
    artifacts,
    certificates,
    datasets,
    events,
    fides,
    health,
    jobs,
    keys,
    meta,
    models,
    oauth,
    opendsr,
    rulings,
    schemas,
    webhooks,
)
from api.telemetry import HttpMetrics
from shared.settings import Settings

DESCRIPTION = """
Efface makes CLIP models forget, and measures that they did.

Post an erasure request to `/jobs`, follow the job, and fetch its report, its certificate and the new weights. Every
call needs an API key or an access token from `/oauth/token`, `Authorization: Bearer <key>`, but for the health checks,
schemas, and what certificates are checked with. Every error is `application/problem+json` (RFC 9457).
"""


class _Application(FastAPI):
    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document, with the schema of problems."""
        document = super().openapi()
        document["components"]["schemas"].update(problems.SCHEMAS)
        return document


def create_app(settings: Settings) -> FastAPI:
    """Return the application; what it stands on is opened when it starts and closed when it stops."""
    metrics = HttpMetrics()
    app = _Application(
        title="Efface",
        version=VERSION,
        description=DESCRIPTION,
        lifespan=_lifespan(settings, metrics),
        redoc_url=None,
    )
    problems.install(app)
    app.add_middleware(Authentication)
    app.add_middleware(Boundary, metrics=metrics)  # added last, so it is the outermost
    for module in (
        jobs,
        rulings,
        events,
        artifacts,
        certificates,
        models,
        datasets,
        webhooks,
        opendsr,
        fides,
        keys,
        oauth,
        health,
        meta,
        schemas,
    ):
        app.include_router(module.router)
    return app


def _lifespan(settings: Settings, metrics: HttpMetrics) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with opened(settings, metrics) as parts:
            app.state.parts = parts
            try:
                yield
            finally:
                await parts.streams.close()

    return lifespan
