"""What a request comes to once its references are found: labels, the part that each set plays,
and what it should be told.
"""

from typing import Literal

from pydantic import Field

from shared.schemas.base import Schema

SetRole = Literal["target", "transfer", "earlier"]
"""What a set of images is to a request: its target's own, another one, or what an earlier
erasure took away.
"""


class RequestWarning(Schema):
    """Something in a request that is no error, and may not be what was meant."""

    pointer: str = Field(
        examples=["/data/evaluation/0/dataset"], description="RFC 6901, into the request"
    )
    detail: str = Field(
        description="what is so, what follows from it, and what to do where it was not meant"
    )


class MeasuredSet(Schema):
    """A set on which the model is measured before and after."""

    name: str
    role: SetRole
    classes: dict[str, int] = Field(
        description="images of each class, in the spelling of the labels"
    )
    labels: tuple[str, ...] = Field(
        description="what the model chooses from for an image of this set"
    )
    left_out: dict[str, int] = Field(
        default_factory=dict,
        description="images of each folder that no label stands for; they are not measured",
    )
