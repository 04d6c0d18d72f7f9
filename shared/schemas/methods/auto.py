"""Parameters of `auto`, which chooses among the other methods."""

from typing import Literal

from pydantic import Field

from shared.schemas.base import Schema

ChosenMethod = Literal[
    "synthetic", "three_stage", "null_space", "delete", "slug", "clip_erase", "pbu"
]
"""What `auto` may choose: every method but itself and the control."""


class AutoParameters(Schema):
    """Every field has a default that needs no tuning."""

    methods: tuple[ChosenMethod, ...] = Field(
        (),
        max_length=7,
        description=(
            "what to try, in this order; empty: what fits the request's data and thresholds"
        ),
    )
    most: int = Field(4, ge=1, le=7, description="methods that are tried, at most")
