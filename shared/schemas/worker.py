"""Workers and relays, as administrators see them."""

from datetime import datetime
from typing import Any

from pydantic import Field

from shared.schemas.base import Schema
from shared.states import ProcessKind


class WorkerView(Schema):
    """A process of the service that says every few seconds that it lives."""

    id: str
    kind: ProcessKind
    host: str
    version: str
    alive: bool = Field(description="it was heard of within 30 s")
    busy: bool = Field(description="it works on a job")
    job: str | None = Field(None, description="which job, where it is one of your tenant")
    facts: dict[str, Any] = Field(
        description="worker: device, isolation of a job's process, state of the doorbell and how "
        "often its listener was"
        " made anew; relay: whether it has a key to sign with"
    )
    started_at: datetime
    seen_at: datetime


class WorkerList(Schema):
    """Every process that is known."""

    data: list[WorkerView]
