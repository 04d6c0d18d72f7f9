"""Names and wordings: what the text embeddings of a class, and of all that must stay, are measured with."""

import hashlib
import json
from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from worker.clip.classifier import template_embeddings
from worker.methods.frame import Erasure

TEMPLATES = (
    "a photo of a {}.",
    "a photo of the {}.",
    "a picture of a {}.",
    "an image of a {}.",
    "a drawing of a {}.",
    "a sketch of the {}.",
    "a cartoon {}.",
    "a painting of a {}.",
    "a {}.",
    "{}",
    "my {}",
    "a close-up of a {}.",
    "a dark, blurry photo of a {}.",
    "there is a {} here.",
    "i can see the {} now.",
    "two of the {} outdoors.",
    "we like this {}.",
    "our favourite {}!",
    "she has a {} at home.",
    "what a nice {}!",
    "have you seen the {}?",
    "a story about a {}",
    "{} on the street",
    "{}, close up",
    "he bought a {} yesterday.",
    "the {} is over there.",
    "tell me more about the {}.",
    "it is not a {}, is it?",
)
"""Ways to speak of a thing. They differ in all but the name, so that what they share is the name."""

_NAMES = """
    table chair window door bridge mountain river beach forest flower tree fruit apple bread cake bottle cup plate knife
    guitar piano camera clock lamp computer phone book paper shirt shoe hat bag umbrella bicycle train bus tractor rocket
    balloon ball kite person man woman child baby hand face crowd street building house tower castle garden field snow rain
    cloud sun moon star fire stone toy statue snake fish turtle spider insect butterfly elephant lion bear monkey sheep cow
    rabbit mouse whale shark
    """
COMMON_NAMES = tuple(_NAMES.split())
"""Stand in for all that a request's labels do not name and that must stay as it is, too."""

VERSION = "common names 1"
"""Part of the key in the store: a change of how they are embedded must not meet old ones."""
SYNONYM = 0.6
"""Centred cosine of two names from which on they may well mean the same."""


def common_embeddings(erasure: Erasure, templates: Sequence[str]) -> Tensor:
    """Return unit text embeddings [N, K, d] of the common names in K templates: once for a model, then from the store."""
    parts = [VERSION, erasure.original.digest, COMMON_NAMES, tuple(templates)]
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    stored = erasure.store.load(key)
    if stored is None:
        stored = {"texts": template_embeddings(erasure.original, COMMON_NAMES, templates)}
        erasure.store.save(key, stored)
    return stored["texts"].to(erasure.original.device)


def unrelated(forgotten: Tensor, common: Tensor, centre: Tensor) -> Tensor:
    """Return which common names [N] may stand for what stays, as a mask: those whose cosine with no forgotten name reaches 0.6.

    So a synonym that the request did not think of is not protected. Embeddings are [names, K, d]; compared are their means over
    templates, less those of `centre` [K, d].
    """
    gone, other = (F.normalize((names - centre).mean(dim=1), dim=-1) for names in (forgotten, common))
    return (other @ gone.T < SYNONYM).all(dim=1)
