"""Parameters of the synthetic-sample method (arXiv 2407.07485)."""

from typing import Literal

from pydantic import Field

from shared.schemas.base import Schema


class SyntheticParameters(Schema):
    """Every field has a default that needs no tuning."""

    mode: Literal["calibrated", "faithful", "samples_only"] = Field(
        "calibrated", description="closed form and refinement; the published procedure; samples alone"
    )
    samples_per_class: int = Field(64, ge=4, le=1024)
