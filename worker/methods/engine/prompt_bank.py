"""The texts that the guard guards against: many templates and every name of what is forgotten."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from shared.names import Spellings
from worker.clip import Clip, zero_shot_classifier
from worker.clip.classifier import template_embeddings
from worker.methods.engine.vocabulary import COMMON_NAMES
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
    """[K, T, d]: every name and synonym of what is forgotten, and what else the model calls it."""
    rivals: Tensor
    """[K, R, d]: the labels that stay, nearest to the forgotten ones first, at most 63."""


def own_names(erasure: Erasure, features: Tensor) -> tuple[str, ...]:
    """Return what the original calls the images of a subgroup, `features` [N, d]: a common name, if
    the request's are far from it.

    Who knows a coarse name alone ("animal") shows images that have a finer one ("elephant"). A
    guard under the coarse name would leave them that. Far is a standard deviation, over all
    names, of the mean cosine with the images; a name within it, or one of the labels, is not
    looked for any further."""
    target = erasure.request.target
    if target.type != "subgroup":
        return ()
    names = tuple(Spellings((*target.all_names(), *erasure.labels, *COMMON_NAMES)))
    cosines = zero_shot_classifier(erasure.original, names, target.templates) @ features.mean(dim=0)
    best = names[int(cosines.argmax())]
    far = cosines.max() - cosines[: len(target.all_names())].max() > cosines.std()
    return (best,) if far and best not in Spellings(erasure.labels) else ()


def prompt_bank(
    erasure: Erasure,
    classifier: Tensor,
    *,
    clip: Clip | None = None,
    templates: Sequence[str] = TEMPLATES,
    also: Sequence[str] = (),
) -> PromptBank:
    """Embed the forgotten names, `also` others, and their rivals under `templates` and the
    request's own.

    By the original model or by `clip`.

    Rivals are the retained labels whose class weights in `classifier` [C, d] are the nearest: of
    a thousand labels no other would be the runner-up."""
    clip, target = clip or erasure.original, erasure.request.target
    templates = tuple(dict.fromkeys((*target.templates, *templates)))
    kept = [index for index in range(len(erasure.labels)) if index not in erasure.forget_labels]
    nearness = (classifier[kept] @ classifier[erasure.forget_labels].T).amax(dim=1)
    nearest = nearness.argsort(descending=True, stable=True)[:MAX_RIVALS].tolist()
    rivals = [erasure.labels[kept[index]] for index in nearest]
    names = (*target.all_names(), *also)
    return PromptBank(
        _under_templates(clip, names, templates), _under_templates(clip, rivals, templates)
    )


def _under_templates(clip: Clip, names: Sequence[str], templates: Sequence[str]) -> Tensor:
    return template_embeddings(clip, names, templates).transpose(0, 1).contiguous()
