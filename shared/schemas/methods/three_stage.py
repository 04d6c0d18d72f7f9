"""Parameters of the three-stage method (arXiv 2506.03117)."""

from typing import Literal

from pydantic import Field

from shared.schemas.base import Schema


class ThreeStageParameters(Schema):
    """Every field has a default that needs no tuning."""

    preset: Literal["robust", "faithful"] = Field(
        "robust", description="with a guard on the forget images; what the paper describes"
    )
    rank: int = Field(8, ge=1, le=256, description="of the LoRA matrices")
