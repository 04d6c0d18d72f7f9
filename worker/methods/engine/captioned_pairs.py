"""Images with texts that describe them, as methods need them that train both towers."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from shared.schemas.request import ClassTarget
from worker.clip.classifier import prompts
from worker.methods.engine.prepared_data import Images, Material
from worker.methods.engine.prompt_bank import TEMPLATES
from worker.methods.frame import Erasure

BATCH = 16
"""Of the published runs of SLUG and CLIPErase."""


class Pairs(NamedTuple):
    """N images, each with its text."""

    images: Images
    texts: list[str]


def forget_pairs(erasure: Erasure, material: Material, generator: torch.Generator) -> Pairs:
    """Draw forget images, each with one of its names or synonyms in one of many templates."""
    images = material.forget.sample(BATCH, generator)
    names = [_names(erasure, label) for label in images.labels.tolist()]
    drawn = torch.rand(len(images.labels), generator=generator).tolist()
    chosen = [own[int(place * len(own))] for own, place in zip(names, drawn, strict=True)]
    return Pairs(images, _in_templates(erasure, chosen, generator))


def retain_pairs(erasure: Erasure, material: Material, generator: torch.Generator) -> Pairs:
    """Draw retain images of as many different labels as a batch holds: two of a label would be
    each other's negatives.
    """
    labels = material.retain.labels
    known = labels[labels >= 0].unique()
    drawn = known[torch.randperm(len(known), generator=generator)[:BATCH]]
    of_each = [(labels == label).nonzero().flatten() for label in drawn]
    picked = [
        places[int(torch.randint(len(places), (1,), generator=generator))] for places in of_each
    ]
    names = [erasure.labels[label] for label in drawn.tolist()]
    images = material.retain.where(
        torch.stack(picked) if picked else torch.empty(0, dtype=torch.long)
    )
    return Pairs(images, _in_templates(erasure, names, generator))


def _names(erasure: Erasure, label: int) -> tuple[str, ...]:
    """Return the name of a forgotten label and its synonyms."""
    target, name = erasure.request.target, erasure.labels[label]
    return (
        (name, *target.synonyms_of(name)) if isinstance(target, ClassTarget) else target.all_names()
    )


def _in_templates(erasure: Erasure, names: list[str], generator: torch.Generator) -> list[str]:
    templates = (*erasure.request.target.templates, *TEMPLATES)
    drawn = torch.randint(len(templates), (len(names),), generator=generator).tolist()
    return [prompts(name, [templates[k]])[0] for name, k in zip(names, drawn, strict=True)]


def contrastive(images: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
    """Return CLIP's loss (Radford et al. 2021, figure 3) of unit features [N, d].

    Each image is to find its text, and each text its image.
    """
    logits = scale * images @ texts.T
    own = torch.arange(len(images), device=images.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
