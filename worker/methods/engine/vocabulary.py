"""Names and wordings: what the text embeddings of a class, and of all that must stay, are
measured with.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from shared.names import Spellings
from worker.clip import Clip
from worker.clip.classifier import template_embeddings
from worker.methods.frame import Erasure, kept

TEMPLATES = (
    "a photo of a {}.",
    "{}",
    "a drawing of a {}.",
    "there is a {} here.",
    "the {} is over there.",
    "a close-up of a {}.",
    "two of the {} outdoors.",
    "she has a {} at home.",
    "tell me more about the {}.",
    "a {} in the fog",
    "my {}",
    "a painting of a {}.",
    "a photo of the {}.",
    "a picture of a {}.",
    "an image of a {}.",
    "a sketch of the {}.",
    "a cartoon {}.",
    "a {}.",
    "a dark, blurry photo of a {}.",
    "i can see the {} now.",
    "we like this {}.",
    "our favourite {}!",
    "what a nice {}!",
    "have you seen the {}?",
    "a story about a {}",
    "{} on the street",
    "{}, close up",
    "he bought a {} yesterday.",
    "it is not a {}, is it?",
    "one {} among many others",
    "an advertisement with a {}",
    "a {} made of wood",
    "the {} on the left side",
    "a film about a {}",
    "no {} without rain",
    "several {} in a row",
    "a very small {}",
    "the biggest {} of all",
    "a {} at night",
    "a {} on a postage stamp",
    "look, the {}!",
    "my neighbour loves his {}.",
    "a black and white {}",
    "a {} on a white background",
    "it was a {} after all",
    "a child's drawing of the {}",
    "an old {} from the museum",
    "a {} made by a computer",
    "the player with the {}",
    "a world full of {}",
    "we saw the {} in the evening",
    "who needs a {}?",
)
"""Ways to speak of a thing. They differ in all but the name, so that what they share is the
name; the first few do, too.
"""

_NAMES = """
    dog cat horse cow sheep goat pig lion tiger bear wolf fox deer elephant giraffe zebra monkey
    rabbit mouse squirrel bat kangaroo camel donkey bird eagle owl duck goose chicken parrot
    penguin swan fish shark whale dolphin octopus crab lobster snail snake lizard turtle
    crocodile frog insect bee butterfly ant spider fly worm car truck bus van motorcycle bicycle
    train tram airplane helicopter rocket balloon boat ship submarine tractor ambulance wagon
    skateboard table chair sofa bed desk shelf cupboard lamp mirror carpet curtain pillow
    blanket door window wall floor roof stairs fireplace house castle church tower bridge barn
    tent factory school hospital shop restaurant stadium lighthouse windmill fountain statue
    fence gate road street tree flower grass leaf bush cactus mushroom forest field garden
    mountain hill valley desert island river lake sea beach waterfall cave rock sky cloud sun
    moon star rain snow ice fire smoke lightning rainbow sand mud apple banana orange lemon
    grape strawberry cherry peach melon tomato potato carrot onion cabbage corn pumpkin pepper
    bread cheese egg meat sausage soup salad pizza sandwich pasta rice cake cookie chocolate
    candy honey coffee tea milk wine beer juice cup glass plate bowl bottle spoon fork knife pot
    pan oven fridge kettle basket box bag bucket shirt trousers skirt dress coat sweater hat
    glove sock shoe boot belt scarf glasses watch ring necklace umbrella hammer saw screwdriver
    axe shovel ladder rope chain nail needle scissors brush broom candle match book newspaper
    letter pencil pen paper map picture painting flag coin key lock clock calendar telephone
    computer keyboard television radio camera printer battery cable robot guitar piano violin
    drum trumpet flute ball racket ski sled swing kite doll puzzle toy man woman child baby boy
    girl person crowd face eye ear nose mouth hand foot heart bone skeleton doctor soldier king
    teacher farmer cook painter dancer
"""
COMMON_NAMES = tuple(_NAMES.split())
"""Stand in for all that a request's labels do not name and that must stay as it is, too."""

COMMON_TEMPLATES = 11
"""Of `TEMPLATES`, for the common names: that many besides the request's own."""
MOST_TEXTS, FEWEST_TEMPLATES = 8192, 4
"""Large label sets are embedded in fewer templates: all their texts together stay below the
former.
"""
VERSION = "texts 1"
"""Part of the key in the store: a change of how texts are embedded must not meet old ones."""
SYNONYM = 0.6
"""Centred cosine of two names from which on they may well mean the same."""


@dataclass(frozen=True, slots=True)
class Texts:
    """Unit text embeddings of names under templates, [names, templates, d]; the first template
    is the request's own.
    """

    forgotten: Tensor
    """The forgotten names and their synonyms, under all templates."""
    labels: Tensor
    """The labels that stay, under the first of these templates: under as many as there is time
    for.
    """
    common: Tensor
    """The common names that are neither labels nor synonyms of what is forgotten, under some
    first templates.
    """


def texts_of(erasure: Erasure, clip: Clip) -> Texts:
    """Embed the names of a request with the original model (labels and common names once, then
    from the store) or an edited one.
    """
    target, labels = erasure.request.target, erasure.labels
    templates = tuple(dict.fromkeys((*target.templates, *TEMPLATES)))
    shared = templates[: max(FEWEST_TEMPLATES, MOST_TEXTS // len(labels))]
    few = shared[: len(target.templates) + COMMON_TEMPLATES]
    forgotten = template_embeddings(clip, target.all_names(), templates)
    stays = _stored(erasure, clip, labels, shared)[
        [label not in target.names() for label in labels]
    ]
    taken = Spellings((*target.all_names(), *labels))
    common = _stored(erasure, clip, COMMON_NAMES, few)[[name not in taken for name in COMMON_NAMES]]
    alone = unrelated(*(names[:, : len(few)].mean(dim=1) for names in (forgotten, common, stays)))
    return Texts(forgotten, stays, common[alone])


def _stored(erasure: Erasure, clip: Clip, names: Sequence[str], templates: Sequence[str]) -> Tensor:
    """Return unit text embeddings [N, K, d] of N names in K templates; of the original model from
    the store.

    In float32: readers are computed from their second moment's inverse, which enlarges what
    bfloat16 rounds off."""
    if clip is not erasure.original:
        return template_embeddings(clip, names, templates)
    depends_on = {
        "version": VERSION,
        "model": clip.digest,
        "names": [*names],
        "templates": [*templates],
    }
    texts, _ = kept(
        erasure.store, "texts", depends_on, lambda: template_embeddings(clip, names, templates)
    )
    return texts.to(clip.device)


def unrelated(forgotten: Tensor, common: Tensor, labels: Tensor) -> Tensor:
    """Return which common names [N] may stand for what stays, as a mask: those whose cosine with no
    forgotten name reaches 0.6.

    So a synonym that the request did not think of is not protected. Embeddings are [names, d];
    compared is what they have besides the mean of all labels and common names."""
    centre = torch.cat([labels, common]).mean(dim=0)
    gone, other = (F.normalize(names - centre, dim=-1) for names in (forgotten, common))
    return (other @ gone.T < SYNONYM).all(dim=1)
