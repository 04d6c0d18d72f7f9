"""Parameters of the null-space method (arXiv 2512.14137)."""

from typing import Literal

from pydantic import Field

from shared.schemas.base import Fraction, Schema


class NullSpaceParameters(Schema):
    """Every field has a default that needs no tuning."""

    alpha: Fraction = Field(1.0, gt=0, description="share of each name's direction that is removed")
    towers: Literal["image", "text", "both"] = Field(
        "image", description="whose last linear map is edited"
    )
