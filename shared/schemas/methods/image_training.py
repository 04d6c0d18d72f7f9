"""What the methods that train on images have in common."""

from pydantic import Field

from shared.schemas.base import Fraction, Schema


class ImageTrainingParameters(Schema):
    """How much is seen, how much may move, and for how long."""

    depth: Fraction = Field(
        0.5, gt=0, description="share of the image tower, from its end, that is trained"
    )
    max_images: int = Field(
        512, ge=1, le=100_000, description="taken of each data set, drawn by the seed"
    )
    steps: int = Field(60, ge=1, le=10_000, description="of the optimiser, at most")
    learning_rate: float = Field(
        1e-5, gt=0, lt=1, description="of AdamW at the start; it grows until enough is forgotten"
    )
