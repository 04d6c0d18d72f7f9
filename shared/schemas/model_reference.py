"""How a request names a model."""

from typing import Self

from pydantic import Field, model_validator

from shared.schemas.base import Reference, Schema


class ModelReference(Schema):
    """A model: exactly one of a registered `id`, an `architecture` with a `pretrained` tag, or a
    `source`.
    """

    id: Reference | None = Field(None, examples=["mdl_01k3z8w9d0v6m2n4p8q1r5s7t9"])
    architecture: Reference | None = Field(None, examples=["ViT-B-32"])
    pretrained: Reference | None = Field(None, examples=["openai"])
    source: Reference | None = Field(
        None, examples=["local-dir:/models/clip", "hf-hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K"]
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        ways = [
            self.id is not None,
            self.architecture is not None or self.pretrained is not None,
            self.source is not None,
        ]
        if sum(ways) != 1:
            raise ValueError("give exactly one of: id; architecture and pretrained; source")
        if ways[1] and not (self.architecture and self.pretrained):
            raise ValueError("architecture and pretrained go together, e.g. ViT-B-32 and openai")
        return self
