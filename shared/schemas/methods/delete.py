"""Parameters of DELETE (arXiv 2503.23751)."""

from shared.schemas.methods.image_training import ImageTrainingParameters


class DeleteParameters(ImageTrainingParameters):
    """Every field has a default that needs no tuning."""
