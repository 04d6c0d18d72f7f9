"""Parameters of CLIPErase (arXiv 2410.23330)."""

from pydantic import Field

from shared.schemas.base import Fraction, Schema


class ClipEraseParameters(Schema):
    """The weights of the losses are the published ones; rate and steps suit a few hundred
    images, not whole data sets.
    """

    retention: float = Field(
        1.0, ge=0, description="weight of the contrastive loss on retain images"
    )
    forgetting: float = Field(
        3.0, ge=0, description="weight of the similarity of forget images with their texts"
    )
    consistency: float = Field(
        3.0, ge=0, description="weight of the divergence from the original on retain images"
    )
    depth: Fraction = Field(
        1.0, gt=0, description="share of the image tower, from its end, that is trained"
    )
    learning_rate: float = Field(
        1e-5,
        gt=0,
        lt=1,
        description="of Adam, on both towers, at the start; it grows up to twentyfold",
    )
    steps: int = Field(120, ge=1, le=10_000, description="of the optimiser; the best look is kept")
    max_images: int = Field(
        256, ge=1, le=100_000, description="taken of each data set, drawn by the seed"
    )
