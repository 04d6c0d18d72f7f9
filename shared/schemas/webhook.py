"""Webhooks as clients see them."""

from datetime import datetime
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field

from shared.schemas.base import Schema, printable
from shared.states import DeliveryState

EventType = Literal[
    "job.queued",
    "job.started",
    "job.stage",
    "job.requeued",
    "job.cancel_requested",
    "job.held",
    "job.released",
    "job.extended",
    "job.refused",
    "job.deadline_at_risk",
    "job.succeeded",
    "job.failed",
    "job.cancelled",
    "job.superseded_model",
]
EVENT_TYPES: frozenset[str] = frozenset(get_args(EventType))
DEFAULT_EVENTS: tuple[EventType, ...] = (
    "job.succeeded",
    "job.failed",
    "job.cancelled",
    "job.deadline_at_risk",
    "job.superseded_model",
)


class WebhookRegistration(Schema):
    """The body of `POST /webhooks`."""

    url: Annotated[str, Field(max_length=2000), AfterValidator(printable)] = Field(
        description="https; its address must be public, unless the operator allows it",
        examples=["https://compliance.example.com/efface"],
    )
    events: Annotated[tuple[EventType, ...], Field(min_length=1, max_length=len(EVENT_TYPES))] = (
        Field(DEFAULT_EVENTS, description="which events are delivered")
    )
    description: (
        Annotated[str, Field(min_length=1, max_length=200), AfterValidator(printable)] | None
    ) = None


class WebhookView(Schema):
    """An endpoint."""

    object: Literal["webhook"] = "webhook"
    id: str
    url: str
    events: tuple[str, ...]
    description: str | None
    public_key: str = Field(
        description="checks the v1a signatures (Ed25519)", examples=["whpk_..."]
    )
    previous_secret_expires_at: datetime | None = Field(
        description="until then each call is also signed with the secret before the rotation"
    )
    disabled_at: datetime | None
    disabled_reason: str | None
    created_at: datetime


class WebhookWithSecret(WebhookView):
    """An endpoint with its new secret, which is shown this once."""

    secret: str = Field(
        description="checks the v1 signatures (HMAC-SHA256)", examples=["whsec_..."]
    )


class DeliveryAttempt(Schema):
    """One try."""

    at: datetime
    status: int | None = Field(description="null where there was no answer")
    error: str | None
    milliseconds: int


class DeliveryView(Schema):
    """A call that an event owes an endpoint."""

    object: Literal["webhook_delivery"] = "webhook_delivery"
    id: str = Field(description="the webhook-id header, the same at every try")
    webhook: str
    job: str
    type: str
    body: dict[str, Any] = Field(description="what is sent")
    state: DeliveryState
    attempts: tuple[DeliveryAttempt, ...] = Field(description="the last tries, oldest first")
    next_attempt_at: datetime | None
    created_at: datetime
