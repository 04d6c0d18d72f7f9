"""Parameters of the three-stage method (arXiv 2506.03117)."""

from typing import Literal

from pydantic import Field

from shared.schemas.base import Fraction, Schema


class ThreeStageParameters(Schema):
    """Every field has a default that needs no tuning."""

    preset: Literal["robust", "faithful"] = Field(
        "robust", description="with a guard on the forget images; what the paper describes"
    )
    selection: Literal["relative_fisher", "fisher", "all"] = "relative_fisher"
    layers: int = Field(5, ge=1)
    depth: Fraction = 0.5
    adapter: Literal["lora", "full"] = "lora"
    rank: int = Field(8, ge=1, le=256, description="of the LoRA matrices")
    forgetting: bool = True
    forget_steps: int = 20
    remind_steps: int = 40
    learning_rate: float = 1e-3
    distillation: float = 10
    guard: float = 1
    margin: float = 2
    contrastive: float = 1
    hard: float = 1
    ema_decay: float = 0.9
    mixtures: tuple[float, ...] = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.6, 0.5)
    max_images: int = 512

    @property
    def adapter_rank(self) -> int | None:
        """Rank of the LoRA matrices; None where whole parameters are trained."""
        return self.rank if self.adapter == "lora" else None
