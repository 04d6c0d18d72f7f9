"""What runs here, and how it is doing. Any key opens these; the figures are of the whole
service, not of one tenant.
"""

from typing import Annotated

from fastapi import APIRouter, Depends, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from pydantic import BaseModel, Field

from api import VERSION
from api.dependencies import MetricsReader, PartsDep, SessionDep, bearer
from api.json_route import Route
from api.problems import responses
from api.telemetry import QueueMetrics
from services.jobs import queue_stats
from shared.schemas.methods import METHOD_PARAMETERS

router = APIRouter(
    tags=["service"], dependencies=[Depends(bearer)], responses=responses(), route_class=Route
)


class Version(BaseModel):
    """What runs here and what it takes."""

    version: str = Field(examples=["0.1.0"])
    methods: Annotated[list[str], Field(examples=[["synthetic", "three_stage"]])]
    max_body_bytes: int = Field(description="of a JSON body")
    max_upload_bytes: int = Field(description="of a checkpoint or an archive")
    idempotency_seconds: int = Field(
        description="how long the answer under an Idempotency-Key is kept"
    )


@router.get("/version", summary="What runs here")
def version(parts: PartsDep) -> Version:
    """Return the version, the methods and the limits."""
    return Version(
        version=VERSION,
        methods=list(METHOD_PARAMETERS),
        max_body_bytes=parts.settings.max_body_bytes,
        max_upload_bytes=parts.settings.max_upload_bytes,
        idempotency_seconds=parts.settings.idempotency_seconds,
    )


@router.get("/metrics", summary="Figures for Prometheus", response_class=Response)
def metrics(parts: PartsDep, session: SessionDep, caller: MetricsReader) -> Response:
    """Return counters of this process, and the state of the queue at this moment: of every
    tenant's jobs together.
    """
    del caller  # its scope is all that is asked for
    queue = CollectorRegistry()
    queue.register(QueueMetrics(queue_stats.take(session), parts.doorbell.length))
    body = generate_latest(parts.metrics.registry) + generate_latest(queue)
    return Response(body, media_type=CONTENT_TYPE_LATEST)
