"""Parameters of SLUG (arXiv 2407.11867)."""

from typing import Literal

from pydantic import Field

from shared.schemas.base import Fraction, Schema


class SlugParameters(Schema):
    """Every field has a default that needs no tuning."""

    towers: Literal["image", "text", "both"] = Field(
        "both", description="where the layer is looked for"
    )
    depth: Fraction = Field(
        1.0, gt=0, description="share of the image tower, from its end, where it is looked for"
    )
    layers: int = Field(
        4, ge=1, le=100, description="of each tower's Pareto front that are tried, at most"
    )
    rounds: int = Field(10, ge=1, le=50, description="of the search for the length of the step")
    max_images: int = Field(
        256, ge=1, le=100_000, description="taken of each data set, drawn by the seed"
    )
