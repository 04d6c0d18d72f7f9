"""When two names are one: where CLIP's tokenizers make the same of both. Needs no torch.

`open_clip` repairs a text (ftfy: width, ligatures, curly quotes, mojibake, Unicode's normal form
C), unescapes HTML twice, collapses white space and takes lower case. Then it splits the text into
words, digits and the rest, and encodes each part alone, so that white space between a word and a
sign makes no difference. Prompts say a space for an underscore (`worker.clip.classifier`), so names
do.

Whoever compares two names of classes (labels, folders, synonyms, kinds, targets, sets) compares
their `name_key`."""

import html
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

import ftfy
import regex

CONTEXT_TOKENS = 75
"""What of a prompt CLIP reads: 77 tokens, less the two that mark its ends. Each part of a text
is a token or more.
"""
_PARTS = regex.compile(
    r"<start_of_text>|<end_of_text>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
    regex.IGNORECASE,
)
"""As in `open_clip.tokenizer.SimpleTokenizer`."""


def spoken(name: str) -> str:
    """Return a name as CLIP's tokenizers read it in a prompt: repaired, in lower case, with
    single spaces.
    """
    text = name.replace("_", " ")
    if not text.isascii() or "&" in text:  # nothing else of printable text is repaired
        text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(text.split()).lower()


@lru_cache(maxsize=16384)
def name_key(name: str) -> str:
    """Return what two names have in common that are one for CLIP; empty where it reads nothing."""
    return " ".join(_PARTS.findall(spoken(name)))


def key_set(names: Iterable[str]) -> set[str]:
    """Return the keys of some names."""
    return set(map(name_key, names))


class Spellings:
    """Names, found in any spelling; of several spellings of a name the first one counts."""

    def __init__(self, names: Iterable[str]) -> None:
        self._by_key: dict[str, str] = {}
        for name in names:
            self._by_key.setdefault(name_key(name), name)

    def __contains__(self, name: str) -> bool:
        return name_key(name) in self._by_key

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_key.values())

    def __len__(self) -> int:
        return len(self._by_key)

    def get(self, name: str) -> str | None:
        """Return the spelling that a name has here, None where it is none of these."""
        return self._by_key.get(name_key(name))


def given_twice(names: Iterable[str]) -> list[str]:
    """Return the names that are one with another of them, sorted."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(name_key(name), []).append(name)
    return sorted({name for same in found.values() if len(same) > 1 for name in same})


def cut_off(labels: Sequence[str], templates: Sequence[str]) -> list[str]:
    """Return labels that CLIP surely cannot tell apart, since they differ after the last token that
    it reads, sorted.

    A part of a text may be several tokens, so there may be more: the worker compares the tokens
    themselves."""
    shortest = min(map(len, templates), default=0)
    long = [label for label in labels if len(label) + shortest > CONTEXT_TOKENS]
    read: dict[tuple[str, ...], list[str]] = {}
    for label in long:
        prompts = [_PARTS.findall(spoken(template.format(label))) for template in templates]
        if all(len(parts) > CONTEXT_TOKENS for parts in prompts):
            read.setdefault(
                tuple(" ".join(parts[:CONTEXT_TOKENS]) for parts in prompts), []
            ).append(label)
    return sorted(label for same in read.values() if len(same) > 1 for label in same)


def like(name: str, others: Iterable[str]) -> str | None:
    """Return one of the others that is probably meant by a name: it differs in signs, accents or
    the plural alone.
    """
    wanted = _bare(name)
    return next((other for other in others if wanted & _bare(other)), None)


def _bare(name: str) -> set[str]:
    """Return the letters and digits of a name without their marks, as it is and without an
    ending of the plural.
    """
    text = ftfy.fix_text(spoken(name), normalization="NFKD")
    bare = "".join(character for character in text if character.isalnum())
    endings = [
        ending for ending in ("s", "es") if bare.endswith(ending) and len(bare) > len(ending) + 2
    ]
    return {bare, *(bare.removesuffix(ending) for ending in endings)} - {""}
