"""The catalogue of the audit: every measure by its name, what it means, what it needs and at which
level it is taken.

The worker takes the measures (`worker/audit/`); the gateway refuses a threshold on one that
cannot be taken. Both read this."""

import tomllib
from enum import StrEnum
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from shared.schemas.base import Schema
from shared.schemas.measures import Better, Group, Unit

Level = Literal["standard", "thorough"]

SAMPLES = "synthetic samples"
"""The place of what is measured on held-out synthetic samples."""
OWN_SET = "target"
"""The place of what is measured on images held out of `data.forget` and `data.retain`."""
OTHERS = "all other sets"
TEXTS = "texts"
WEIGHTS = "weights"
GIVEN = "data.forget"
RESERVED = frozenset({SAMPLES, OWN_SET, OTHERS, TEXTS, WEIGHTS, GIVEN})
"""Places that no evaluation set may be called."""


class Need(StrEnum):
    """What a measure needs of a request."""

    TARGET = "target"
    REAL = "real"
    REST = "rest"
    SIBLINGS = "siblings"
    KIND = "kind"
    SYNONYMS = "synonyms"
    TRANSLATIONS = "translations"
    TRANSFER = "transfer"
    GIVEN = "given"
    CAPTIONS = "captions"
    REFERENCE = "reference"


LACKS: dict[Need, str] = {
    Need.TARGET: (
        "needs images of what is forgotten, or the method synthetic, which makes samples of it"
    ),
    Need.REAL: "needs real images of what is forgotten: add an evaluation set that holds the class",
    Need.REST: (
        "needs real images of the rest of the target's set: add an evaluation set that "
        "holds the class and others"
    ),
    Need.SIBLINGS: "needs another label of the same kind, as the audit's words or audit.kinds say",
    Need.KIND: (
        "needs the kind of the class and another kind among target.labels: name them in audit.kinds"
    ),
    Need.SYNONYMS: "needs another name of the class: give target.synonyms or audit.names",
    Need.TRANSLATIONS: (
        "needs a class whose translations the audit knows (80 common nouns); give "
        "others in audit.names"
    ),
    Need.TRANSFER: "needs an evaluation set besides the target's own",
    Need.GIVEN: (
        "needs images of what is forgotten in data.forget, and others of it that the "
        "method does not see"
    ),
    Need.CAPTIONS: (
        "needs captions: WebDataset shards with a label in .cls or .json, and captions in .txt"
    ),
    Need.REFERENCE: "needs a model that never saw what is forgotten: name one in audit.reference",
}
"""Why a measure cannot be taken, and what to do."""


class Entry(Schema):
    """One measure. The words are those of the report."""

    title: str
    group: Group
    better: Better
    unit: Unit = "share"
    level: Level = "standard"
    needs: tuple[Need, ...]
    definition: str
    source: str


CATALOGUE = TypeAdapter(dict[str, Entry]).validate_python(
    tomllib.loads(Path(__file__).with_name("measures.toml").read_text(encoding="utf-8"))
)
"""Every measure by its name, in the order of `measures.toml`."""
