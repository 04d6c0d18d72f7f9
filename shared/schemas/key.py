"""API keys as clients see them."""

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from shared.schemas.base import Label, Schema
from shared.states import Scope

MAX_GRACE_SECONDS = 30 * 24 * 3600

ExpiresAt = Annotated[
    AwareDatetime | None, Field(description="when it stops working; null: when it is revoked")
]


class KeyView(Schema):
    """One key. Of its secret only a hash is kept."""

    object: Literal["key"] = "key"
    id: str = Field(description="also the `client_id` for POST /oauth/token")
    name: str
    scopes: tuple[Scope, ...]
    created_at: AwareDatetime
    expires_at: ExpiresAt
    revoked_at: AwareDatetime | None
    previous_expires_at: AwareDatetime | None = Field(
        description="until when the secret from before the last rotation works"
    )
    made_by: str | None = Field(
        None, description="the key that asked for it; null where the operator made it"
    )
    rotated_by: str | None = Field(
        None,
        description=(
            "the key that was given its secret at the last rotation; null where the operator was"
        ),
    )


class NewKey(KeyView):
    """A key with its secret, which is shown this once."""

    secret: str = Field(
        description="the bearer key; also the `client_secret` for POST /oauth/token"
    )


class KeyRequest(Schema):
    """The body of `POST /keys`."""

    name: Label
    scopes: tuple[Scope, ...] = Field(min_length=1, max_length=len(Scope))
    expires_at: ExpiresAt = None


class RotationRequest(Schema):
    """The body of `POST /keys/{id}/rotate`."""

    grace_seconds: int | None = Field(
        None,
        ge=0,
        le=MAX_GRACE_SECONDS,
        description="how long the old secret still works; by default what the operator set",
    )
    expires_at: ExpiresAt = Field(
        None, description="a new end; without it the key expires when it did"
    )
