"""Parameters of the three-stage method (arXiv 2506.03117)."""

from typing import Any, Literal

from pydantic import ConfigDict, Field, model_validator

from shared.schemas.base import Fraction, Schema

FAITHFUL: dict[str, Any] = {
    "layers": 5,
    "depth": 1.0,
    "directions": "random",
    "rank": 8,
    "prior": 0.0,
    "distillation": 0.0,
    "guard": 0.0,
    "alignment": "batch_norm",
}
"""What the preset `faithful` changes; a field that the request gives goes before."""


class ThreeStageParameters(Schema):
    """Every field has a default that needs no tuning."""

    model_config = ConfigDict(strict=True)

    preset: Literal["robust", "faithful"] = Field(
        "robust", description="with a guard on the forget images; what the paper describes"
    )

    selection: Literal["relative_fisher", "fisher", "all"] = Field(
        "relative_fisher",
        description="by what the layers to edit are chosen; all takes every candidate",
    )
    layers: int = Field(8, ge=1, le=1000, description="how many weights are edited")
    depth: Fraction = Field(
        0.33, gt=0, description="share of the image tower, from its end, that holds the candidates"
    )
    adapter: Literal["lora", "full"] = Field(
        "lora", description="low-rank corrections, or all entries of the weights"
    )
    rank: int = Field(32, ge=1, le=256, description="of the LoRA matrices")
    directions: Literal["relative_fisher", "random"] = Field(
        "relative_fisher",
        description=(
            "the input directions that a correction reads: those that forget images use "
            "and others do not, or any"
        ),
    )
    learning_rate: float = Field(1e-3, gt=0, lt=1, description="of AdamW in both stages")
    max_images: int = Field(
        512, ge=1, le=100_000, description="taken of each data set, drawn by the seed"
    )

    forgetting: bool = Field(
        True, description="stage 1; without it the layers are chosen and nothing else"
    )
    forget_steps: int = Field(20, ge=1, le=10_000, description="at most")

    reminding: bool = Field(True, description="stage 2")
    remind_steps: int = Field(40, ge=1, le=10_000)
    contrastive: float = Field(
        1.0, ge=0, le=1000, description="weight of the contrastive loss on retain images"
    )
    prior: Fraction = Field(
        0.5,
        description=(
            "how far the contrastive loss discounts how often each class is drawn; 1 is all the way"
        ),
    )
    distillation: float = Field(
        30.0, ge=0, le=1000, description="weight of the distillation from the original model"
    )
    guard: float = Field(
        1.0,
        ge=0,
        le=1000,
        description="weight of the guard on the forget images, over many prompts",
    )
    margin: float | None = Field(
        None,
        ge=0,
        le=1000,
        description=(
            "logits by which the guard wants another label ahead; 2 for a subgroup, 6 for a class"
        ),
    )
    alignment: Literal["off", "batch_norm", "tokens"] = Field(
        "off",
        description=(
            "of retain images with the statistics of BatchNorm layers, or of the tokens "
            "of proxy images"
        ),
    )
    ema_decay: Fraction = Field(
        0.9, lt=1, description="of the average of the weights; 0 switches it off"
    )

    restoring: bool = Field(True, description="stage 3")

    @model_validator(mode="before")
    @classmethod
    def _fill_in_preset(cls, values: Any) -> Any:  # noqa: ANN401 - whatever was posted
        if isinstance(values, dict) and values.get("preset") == "faithful":
            return FAITHFUL | values
        return values

    @property
    def lora_rank(self) -> int | None:
        """The rank of the LoRA matrices; None where weights are trained in full."""
        return self.rank if self.adapter == "lora" else None
