"""The application."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI

from api import VERSION, problems
from api.boundary import Authentication, Boundary
from api.console.gate import Gate
from api.console.pages import router as console
from api.parts import opened
from api.routes import (
    artifacts,
    certificates,
    datasets,
    docs,
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
    workers,
)
from api.telemetry import HttpMetrics
from services.subject_requests.opendsr import PREFIX
from shared.errors import InvalidRequest
from shared.settings import Settings

DESCRIPTION = """
Efface makes CLIP models forget, and measures that they did.

Post an erasure request to `/jobs`, follow the job, and fetch its report, its certificate and the
new weights. Every call needs an API key or an access token from `/oauth/token`, `Authorization:
Bearer <key>`, but for the health checks, this document, schemas, and what certificates are checked
with. Every error is `application/problem+json` (RFC 9457).
"""


LICENSE = {"name": "Apache 2.0", "identifier": "Apache-2.0"}


class _Application(FastAPI):
    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document, with the schema of problems and what every route has in
        common.
        """
        if self.openapi_schema is None:
            document = super().openapi()
            document["components"]["schemas"].update(problems.SCHEMAS)
            for path, operations in document["paths"].items():
                for operation in operations.values():
                    _complete(path, operation)
        return self.openapi_schema or {}

    @cache  # noqa: B019 - there is one application, and it lives as long as its process
    def rendered_openapi(self) -> bytes:
        """Return the document as JSON."""
        return json.dumps(self.openapi(), ensure_ascii=False, separators=(",", ":")).encode()


def _complete(path: str, operation: dict[str, Any]) -> None:
    """Write into an operation what `api.json_route` does for all of them."""
    operation.setdefault("security", [])
    answers = operation["responses"]
    if not any(
        status.startswith("4") for status in answers
    ):  # an unknown parameter is refused everywhere
        wrong = (
            HTTPStatus.BAD_REQUEST if path.startswith(PREFIX) else HTTPStatus.UNPROCESSABLE_ENTITY
        )
        answers[str(int(wrong))] = {
            "description": InvalidRequest.title,
            "content": problems.CONTENT,
        }
    if "requestBody" in operation:
        for status in (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.UNSUPPORTED_MEDIA_TYPE):
            answers.setdefault(
                str(int(status)), {"description": status.phrase, "content": problems.CONTENT}
            )


def create_app(settings: Settings) -> FastAPI:
    """Return the application; what it stands on is opened when it starts and closed when it
    stops.
    """
    metrics = HttpMetrics()
    app = _Application(
        title="Efface",
        version=VERSION,
        description=DESCRIPTION,
        lifespan=_lifespan(settings, metrics),
        license_info=LICENSE,
        servers=[
            {"url": "/"},
            *({"url": url.rstrip("/")} for url in (settings.public_url,) if url),
        ],
        openapi_url=None,  # ours, in `routes.docs`
        docs_url=None,
        redoc_url=None,
    )
    problems.install(app)
    app.add_middleware(Authentication)
    app.add_middleware(Gate)
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
        workers,
        schemas,
        docs,
    ):
        app.include_router(module.router)
    app.include_router(console)
    return app


def _lifespan(
    settings: Settings, metrics: HttpMetrics
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with opened(settings, metrics) as parts:
            app.state.parts = parts
            try:
                yield
            finally:
                await parts.streams.close()

    return lifespan
