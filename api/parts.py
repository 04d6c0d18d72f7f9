"""What one API process holds open: its settings, the database, the object storage, the doorbell
and its counters.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from anyio import CapacityLimiter
from fastapi import Request

from api.remembered import Remembered
from api.streams import Streams
from api.telemetry import HttpMetrics
from api.turns import Turns
from api.upload_desk import UploadDesk
from services.access import quotas
from shared.ports.object_storage import Storage
from shared.ports.queue import Doorbell, make_queue
from shared.ports.rate_limiter import RequestLimiter
from shared.postgres.database import Database, make_engine
from shared.schemas.health import Ready
from shared.settings import Settings

LOOKUP_WAIT_SECONDS = 30.0
READY_SECONDS = 2.0
BODY_THREADS = 2
"""Parsing holds the interpreter's lock: more threads would not be faster, and keep the loop
waiting longer.
"""


@dataclass(frozen=True, slots=True)
class Parts:
    """Opened once, by the application's lifespan."""

    settings: Settings
    database: Database
    storage: Storage
    doorbell: Doorbell
    limiter: RequestLimiter
    uploads: UploadDesk
    lookups: Turns
    """Of names of hosts that tenants choose."""
    readiness: Remembered[Ready]
    metrics: HttpMetrics
    streams: Streams
    body_threads: CapacityLimiter
    """Threads that JSON bodies are parsed and checked in. They share nothing with those that let
    requests in.
    """


@contextmanager
def opened(settings: Settings, metrics: HttpMetrics) -> Iterator[Parts]:
    """Open everything; close it at the end. Nothing is connected yet: a part that is down shows
    in /health/ready.
    """
    engine = make_engine(settings)
    limiter = RequestLimiter(settings)
    uploads = UploadDesk(settings)
    database = Database(engine)
    try:
        yield Parts(
            settings=settings,
            database=database,
            streams=Streams(database, settings),
            storage=Storage(settings.storage_url, settings.storage_public_endpoint),
            doorbell=Doorbell(make_queue(settings)),
            limiter=limiter,
            uploads=uploads,
            lookups=Turns(
                quotas.LOOKUPS,
                total=4,
                per_tenant=1,
                wait_seconds=LOOKUP_WAIT_SECONDS,
                retry_seconds=5,
            ),
            readiness=Remembered(READY_SECONDS),
            metrics=metrics,
            body_threads=CapacityLimiter(BODY_THREADS),
        )
    finally:
        uploads.inspectors.close()
        limiter.close()
        engine.dispose()


def parts_of(request: Request) -> Parts:
    """Return what the application of this request holds open."""
    parts: Parts = request.app.state.parts
    return parts
