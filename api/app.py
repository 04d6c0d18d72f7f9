"""The application."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from fastapi import FastAPI

from api import VERSION, problems
from api.boundary import Authentication, Boundary
from api.parts import opened
from api.routes import artifacts, datasets, events, health, jobs, meta, models, schemas
from api.telemetry import HttpMetrics
from shared.settings import Settings

DESCRIPTION = """
Efface makes CLIP models forget, and measures that they did.

Post an erasure request to `/jobs`, follow the job, and fetch its report and the new weights. Every call but the health
checks and the schema of reports needs an API key: `Authorization: Bearer <key>`. Every error is
`application/problem+json` (RFC 9457).
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
    for module in (jobs, events, artifacts, models, datasets, health, meta, schemas):
        app.include_router(module.router)
    return app


def _lifespan(settings: Settings, metrics: HttpMetrics) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with opened(settings, metrics) as parts:
            app.state.parts = parts
            yield

    return lifespan
