"""Parameters of partially blinded unlearning (arXiv 2403.16246)."""

from pydantic import Field

from shared.schemas.methods.image_training import ImageTrainingParameters


class PbuParameters(ImageTrainingParameters):
    """Every field has a default that needs no tuning."""

    fisher: float = Field(
        1.0, ge=0, description="weight of the stability term that Fisher information weighs"
    )
    l2: float = Field(
        1.0, ge=0, description="weight of the stability term that treats all weights alike"
    )
