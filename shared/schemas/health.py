"""Whether the service lives, and whether it can work."""

from typing import Literal

from pydantic import BaseModel, Field

State = Literal["up", "down"]


class Live(BaseModel):
    """The process answers."""

    status: Literal["up"] = "up"


class Owed(BaseModel):
    """What the relay has still to do."""

    certificates: int
    purges: int
    deliveries: int


class Ready(BaseModel):
    """What the service stands on, part by part."""

    status: Literal["up", "degraded", "down"] = Field(
        description="degraded: this gateway can work, and something beside it is amiss; see `notes`"
    )
    checks: dict[str, State]
    notes: list[str] = Field(
        default_factory=list, description="who is silent: relays, workers, the key that signs"
    )
    owed: Owed | None = Field(
        None, description="what the relay has still to do; unknown while Postgres is down"
    )
