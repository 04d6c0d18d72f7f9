"""Parameters of gradient ascent (arXiv 1911.04933)."""

from pydantic import Field

from shared.schemas.methods.image_training import ImageTrainingParameters


class GradientAscentParameters(ImageTrainingParameters):
    """A control takes the steps that it is told to, and does not look how far it got."""

    learning_rate: float = Field(1e-4, gt=0, lt=1, description="of AdamW")
    steps: int = Field(10, ge=1, le=10_000, description="of the optimiser, all of them")
