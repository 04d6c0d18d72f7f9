"""The texts that the guard guards against: many templates and every name of what is forgotten."""

from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F

from shared.schemas.request import ClassTarget, SubgroupTarget
from worker.clip import Clip
from worker.clip.classifier import prompts
from worker.clip.embeddings import embed_texts
from worker.methods.frame import Erasure

TEMPLATES = (
    "a photo of a {}.",
    "a photo of the {}.",
    "a blurry photo of a {}.",
    "a black and white photo of the {}.",
    "a close-up photo of a {}.",
    "a good photo of the {}.",
    "a cropped photo of a {}.",
    "a photo of many {}.",
    "a painting of a {}.",
    "a painting of the {}.",
    "a cartoon {}.",
    "a rendering of a {}.",
    "art of the {}.",
    "graffiti of a {}.",
    "a doodle of a {}.",
    "a tattoo of a {}.",
    "an embroidered {}.",
    "a plastic {}.",
    "a toy {}.",
    "a {} in a video game.",
    "an image of a {}.",
    "an image showing the {}",
    "an illustration of a {}.",
    "there is a {} in the scene.",
    "this is a {}",
    "one {}",
    "the {}",
    "a {} on a white background.",
    "a large {}.",
    "a small {}.",
    "my {}.",
    "itap of a {}.",
)
"""Wordings that users of CLIP put around a class name, and media in which a class may be shown."""

MAX_RIVALS = 63


class PromptBank(NamedTuple):
    """Unit text embeddings under K templates."""

    targets: Tensor
    """[K, T, d]: every name and synonym of what is forgotten."""
    rivals: Tensor
    """[K, R, d]: the labels that stay, nearest to the forgotten ones first, at most 63."""


def prompt_bank(erasure: Erasure, classifier: Tensor) -> PromptBank:
    """Embed the forgotten names and their rivals under our templates and the request's own.

    Rivals are the retained labels whose class weights in `classifier` [C, d] are the nearest: of a thousand labels no other would
    be the runner-up.
    """
    clip, target = erasure.original, erasure.request.target
    templates = tuple(dict.fromkeys((*target.templates, *TEMPLATES)))
    names = [name for forgotten in target.names() for name in (forgotten, *_synonyms(target, forgotten))]
    kept = [index for index in range(len(erasure.labels)) if index not in erasure.forget_labels]
    nearness = (classifier[kept] @ classifier[erasure.forget_labels].T).amax(dim=1)
    nearest = nearness.argsort(descending=True, stable=True)[:MAX_RIVALS].tolist()
    rivals = [erasure.labels[kept[index]] for index in nearest]
    return PromptBank(_under_templates(clip, names, templates), _under_templates(clip, rivals, templates))


def _synonyms(target: ClassTarget | SubgroupTarget, name: str) -> tuple[str, ...]:
    return target.synonyms_of(name) if isinstance(target, ClassTarget) else target.synonyms


def _under_templates(clip: Clip, names: list[str], templates: tuple[str, ...]) -> Tensor:
    texts = [text for name in names for text in prompts(name, templates)]
    embedded = embed_texts(clip, texts).unflatten(0, (len(names), len(templates)))
    return F.normalize(embedded, dim=-1).transpose(0, 1).contiguous()
