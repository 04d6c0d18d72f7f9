"""What a controller rules on a request: hold, extension, refusal (Art. 12 and 17 GDPR)."""

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, Field

from shared.schemas.base import Schema, printable
from shared.states import Ground

Reason = Annotated[str, Field(min_length=1, max_length=500), AfterValidator(printable)]
"""A sentence for the file. It is kept with the job, so it should name nobody."""


class Hold(Schema):
    """The clock is stopped while the data subject's identity is in doubt (Art. 12(6))."""

    reason: str
    since: datetime


class HoldRequest(Schema):
    """The body of `POST /jobs/{id}/hold`."""

    reason: Reason


class Extension(Schema):
    """The period was extended by two further months (Art. 12(3))."""

    reason: str
    extended_at: datetime


class ExtensionRequest(Schema):
    """The body of `POST /jobs/{id}/extend`."""

    reason: Reason


class Refusal(Schema):
    """The controller does not act on the request (Art. 12(4))."""

    ground: Ground
    detail: str | None
    refused_at: datetime


class RefusalRequest(Schema):
    """The body of `POST /jobs/{id}/refuse`."""

    ground: Ground
    detail: Reason | None = None
