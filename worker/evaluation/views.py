"""What the audit looks at: places with images, what each image is to the request, and the models
side by side.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from shared.schemas.report import ModelChange, Role
from shared.schemas.request import ErasureRequest
from shared.schemas.resolution import SetRole
from worker.data.images import ImageSet
from worker.evaluation.subject import Subject

Hits = Tensor
"""Bool [N]: which images were recognised."""


@dataclass(frozen=True, kw_only=True)
class View:
    """The N images of one place, and the labels that they are measured with."""

    name: str
    role: SetRole | Literal["samples"]
    names: tuple[str, ...]
    """The class of each image."""
    roles: tuple[Role, ...]
    """Of each image."""
    labels: tuple[str, ...]
    templates: tuple[str, ...]
    captions: tuple[str | None, ...] = ()
    """Of each image; empty where the place has none at all."""

    @cached_property
    def truth(self) -> Tensor:
        """The index of each image's label [N]."""
        index = {label: number for number, label in reversed(list(enumerate(self.labels)))}
        return torch.tensor([index[name] for name in self.names], dtype=torch.long)

    @cached_property
    def forget(self) -> Tensor:
        """Bool [N]: the images of what is forgotten."""
        return self.having("forget")

    def having(self, role: Role) -> Tensor:
        """Return which images have a role, bool [N]."""
        return torch.tensor([own == role for own in self.roles], dtype=torch.bool)

    def logits(self, images: Subject, texts: Subject) -> Tensor:
        """Return scaled cosines [N, C] of one model's image tower and another's text tower, by
        the view's templates.
        """
        weights = texts.classifier(self.labels, self.templates)
        return images.scale * images.embeddings(self.name) @ weights.T

    def hits(self, images: Subject, texts: Subject | None = None) -> Hits:
        """Return which images are recognised, by one model or by the towers of two."""
        return self.logits(images, texts or images).argmax(dim=1) == self.truth


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """All that the measures of one audit share."""

    request: ErasureRequest
    labels: tuple[str, ...]
    """Every label of the target's set."""
    views: tuple[View, ...]
    original: Subject
    unlearned: Subject
    change: ModelChange
    reference: Subject | None = None
    given: ImageSet | None = None
    """Images of what is forgotten that the method learnt from, or some of them; their features
    are at `data.forget`.
    """
    own_images: ImageSet | None = None
    """The images of the target's own set, in the order of its view."""

    def targets(self) -> Iterator[View]:
        """Yield the views that show what this request forgets, the target's own set first."""
        yield from (
            view for view in self.views if view.role != "earlier" and bool(view.forget.any())
        )

    @property
    def own(self) -> View | None:
        """The target's own set of real images."""
        return next((view for view in self.views if view.role == "target"), None)

    def gone(self, view: View) -> list[int]:
        """Return the indices among a view's labels of what is forgotten."""
        return [
            view.labels.index(name) for name in self.request.target.names() if name in view.labels
        ]

    def subjects(self, place: str) -> tuple[Subject, ...]:
        """Return the models that there are: the original, the unlearned one, and the reference
        where it was shown a place.
        """
        shown = self.reference is not None and place in self.reference.features
        return (
            self.original,
            self.unlearned,
            *([self.reference] if self.reference and shown else []),
        )


def odds(logits: Tensor, gone: list[int]) -> Tensor:
    """Return log(p / (1 - p)) [N], p the probability of the labels `gone` together, from logits
    [N, C].
    """
    chosen = torch.zeros(logits.shape[1], dtype=torch.bool)
    chosen[gone] = True
    return logits[:, chosen].logsumexp(dim=1) - logits[:, ~chosen].logsumexp(dim=1)
