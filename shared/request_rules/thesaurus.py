"""Other words for common things: what the audit tries instead of a class name.

`words.json` covers 80 everyday nouns: English synonyms, the kind of thing they are, German,
French, Spanish and Italian. A request gives what the table does not hold (`audit.names`,
`audit.kinds`)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from shared.names import spoken

TABLE = Path(__file__).with_name("words.json")


@dataclass(frozen=True, slots=True)
class Word:
    """What the table knows of a word; of one that it does not hold, nothing."""

    synonyms: tuple[str, ...] = ()
    kind: str | None = None
    """What it is one of: `animal`."""
    translations: Mapping[str, str] = field(default_factory=dict)
    """By language, ISO 639-1."""


def look_up(name: str) -> Word:
    """Return what the table knows of a class name, in any case, with underscores or spaces,
    found by its synonyms, too.
    """
    word = spoken(name)
    table = _table()
    if word in table:
        return table[word]
    for entry, known in table.items():
        if word in known.synonyms:
            others = tuple(other for other in (entry, *known.synonyms) if other != word)
            return Word(others, known.kind, known.translations)
    return Word()


@cache
def _table() -> dict[str, Word]:
    rows = json.loads(TABLE.read_text(encoding="utf-8"))
    return {
        name: Word(tuple(row["synonyms"]), row["kind"], row["translations"])
        for name, row in rows.items()
    }
