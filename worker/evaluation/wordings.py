"""What the audit calls a class instead of its name, and the templates around it: none is given
to any method.
"""

from collections.abc import Iterator
from functools import cache
from typing import Literal, NamedTuple

import inflect

from shared.names import Spellings, name_key, spoken
from shared.request_rules.measurable import other_names
from shared.request_rules.thesaurus import look_up
from shared.schemas.request import ErasureRequest

TEMPLATES = (
    "a snapshot of a {}.",
    "here we see a {}.",
    "the {} in the middle of the frame",
    "a picture with a {} in it.",
    "someone took a photograph of the {}.",
    "a {}, seen from the side.",
    "a low-resolution image of a {}.",
    "{} in natural surroundings",
    "what this shows is a {}.",
    "a typical {}",
    "a stock photo of {}",
    "an object known as {}",
)
DISTRACTORS = (
    "thing",
    "object",
    "item",
    "something",
    "stuff",
    "figure",
    "subject",
    "specimen",
    "blicket",
    "wug",
    "dax",
    "florp",
    "zorble",
    "tulver",
    "frindle",
    "gavagai",
)
"""Words that say nothing. An image of a class that was forgotten is near to no label, so any
word at all would win it from the labels; a wording counts only where it beats these, too."""
MAX_TEXTS = 1536
FEWEST_TEMPLATES = 2

Kind = Literal["template", "synonym", "plural", "translation", "misspelling"]


class Wording(NamedTuple):
    """One way to speak of a forgotten class."""

    kind: Kind
    label: str
    words: str


def wordings(request: ErasureRequest, labels: tuple[str, ...]) -> list[Wording]:
    """Return every wording of what is forgotten, each once. One that is also a label, or its
    plural, would speak of that label."""
    found: dict[str, Wording] = {}
    taken = Spellings(labels)
    for label in request.target.names():
        found[name_key(label)] = Wording("template", label, spoken(label))
        for wording in _others(request, label):
            if wording.words not in taken:
                found.setdefault(name_key(wording.words), wording)
    return list(found.values())


def templates_for(labels: tuple[str, ...]) -> tuple[str, ...]:
    """Return as many of the templates as a label set of this size leaves time for: all twelve up
    to 128 labels, never under two."""
    return TEMPLATES[: max(FEWEST_TEMPLATES, MAX_TEXTS // len(labels))]


def _others(request: ErasureRequest, label: str) -> Iterator[Wording]:
    name, synonyms = spoken(label), other_names(request, label)
    yield from (Wording("synonym", label, words) for words in synonyms)
    yield from (Wording("plural", label, _plural(words)) for words in (name, *synonyms))
    yield from (
        Wording("translation", label, words) for words in look_up(label).translations.values()
    )
    yield from (Wording("misspelling", label, words) for words in misspellings(name))


def misspellings(name: str) -> list[str]:
    """Return a name with a letter of its middle left out, doubled, and changed with the next
    one.
    """
    half = len(name) // 2
    head, letter, tail = name[:half], name[half], name[half + 1 :]
    wrong = (head + tail, head + letter + letter + tail, head + tail[:1] + letter + tail[1:])
    return [word for word in dict.fromkeys(map(str.strip, wrong)) if word and word != name]


def _plural(name: str) -> str:
    return str(_engine().plural_noun(name) or name)


@cache
def _engine() -> inflect.engine:
    return inflect.engine()
