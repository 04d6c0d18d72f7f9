"""The closed form: take a class's direction out of the image projection, and reflect it in the text projection.

    mu = mean of W_c over the labels that stay
    u  = first left singular vector of [t(y, template_k) - mu]_k, for each name y;   U = orthonormal basis of all u
    image projection <- projection P,  P = I - U U^T
    text projection  <- projection R,  R = I - 2 U U^T

Centring matters: text embeddings share a cone, and what is to go is what sets the class apart within it. As P R = P, a
pair of the edited towers scores as if only images had been projected; and since R turns the class's direction round, the
original image tower put back with the edited text tower does not recognise it either. R is orthogonal, so it changes no
norm. From the null-space family (Mishra et al., arXiv 2512.14137), centred.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shared.errors import JobFailure
from worker.clip import encode_texts, zero_shot_classifier
from worker.clip.classifier import prompts
from worker.methods.frame import Erasure

TEMPLATES = (
    "a photo of a {}.",
    "a picture of a {}.",
    "an image of a {}.",
    "a {}.",
    "a drawing of a {}.",
    "a close-up of a {}.",
)
FEW_LABELS = 4
COMMON_NAMES = (
    "person", "tree", "house", "car", "dog", "bottle", "chair", "flower", "book", "mountain",
    "bridge", "bread", "bird", "boat", "shoe", "river", "clock", "hat", "road", "fruit",
)  # fmt: skip
"""Stand in for the centre of the name space where the request has too few labels to show it."""


@dataclass(frozen=True, slots=True)
class Projection:
    """P [d, d] and the number of directions it removes."""

    matrix: Tensor
    rank: int


def erase_direction(erasure: Erasure) -> Projection:
    """Edit both projections in place and return P.

    Raises:
        JobFailure: `method_failed`: the model has no linear projection that we know.
    """
    basis = class_directions(erasure)
    identity = torch.eye(len(basis), device=basis.device)
    removed = basis @ basis.T
    with torch.no_grad():
        project_images(erasure.clip.model, identity - removed)
        project_texts(erasure.clip.model, identity - 2 * removed)
    return Projection(identity - removed, basis.shape[1])


@torch.no_grad()
def class_directions(erasure: Erasure) -> Tensor:
    """Return an orthonormal basis [d, r] of the directions of all names that are to be forgotten."""
    target, clip = erasure.request.target, erasure.original
    stays = [label for label in erasure.labels if label not in target.names()]
    names = [name for y in target.names() for name in (y, *_synonyms(erasure, y))]
    if len(stays) < FEW_LABELS:
        words = {word for name in (*names, *stays) for word in name.lower().split()}
        stays = [*stays, *(name for name in COMMON_NAMES if name not in words)]
    centre = zero_shot_classifier(clip, stays, target.templates).mean(dim=0)
    templates = tuple(dict.fromkeys((*target.templates, *TEMPLATES)))
    directions = [first_direction(encode_texts(clip, prompts(name, templates)) - centre) for name in names]
    basis: Tensor = torch.linalg.qr(torch.stack(directions, dim=1)).Q
    return basis


def first_direction(offsets: Tensor) -> Tensor:
    """Return the unit vector [d] along which offsets [K, d] are largest: their first right singular vector."""
    _, _, right = torch.linalg.svd(offsets.float(), full_matrices=False)
    direction: Tensor = F.normalize(right[0], dim=0)
    return direction


def project_images(model: nn.Module, matrix: Tensor) -> None:
    """Multiply what the image tower gives, v <- v M, for a symmetric M [d, d], by editing its last linear map."""
    visual: Any = model.visual
    if isinstance(getattr(visual, "proj", None), nn.Parameter):  # vision transformer: [width, d]
        visual.proj.copy_(visual.proj @ matrix)
    elif hasattr(visual, "attnpool") and hasattr(
        visual.attnpool, "c_proj"
    ):  # ResNet: attention pooling ends in a linear layer
        last = visual.attnpool.c_proj
        last.weight.copy_(matrix @ last.weight)
        last.bias.copy_(matrix @ last.bias)
    else:
        raise JobFailure(
            "method_failed", "The closed form needs a linear image projection, which this architecture lacks."
        )


def project_texts(model: nn.Module, matrix: Tensor) -> None:
    """Multiply what the text tower gives, t <- t M, for a symmetric M [d, d]."""
    tower = getattr(model, "text", model)
    projection = getattr(tower, "text_projection", None)
    if isinstance(projection, nn.Parameter):
        projection.copy_(projection @ matrix)
    elif isinstance(projection, nn.Linear):
        projection.weight.copy_(matrix @ projection.weight)
        if projection.bias is not None:
            projection.bias.copy_(matrix @ projection.bias)
    else:
        raise JobFailure(
            "method_failed", "The closed form needs a linear text projection, which this architecture lacks."
        )


def _synonyms(erasure: Erasure, name: str) -> tuple[str, ...]:
    target = erasure.request.target
    return target.synonyms_of(name) if target.type == "class" else target.synonyms
