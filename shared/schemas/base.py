"""What all schemas share."""

import re
from datetime import datetime
from typing import Annotated
from unicodedata import normalize

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, Strict

YEARS = range(2000, 2100)
MAX_LINE = 2000
"""Characters of a line of text, whatever it is."""


class Schema(BaseModel):
    """A value that came from outside or goes outside. Unknown fields are errors: a misspelt one is never ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, serialize_by_alias=True)


def printable(text: str) -> str:
    """Return the text in Unicode's normal form C.

    Raises:
        ValueError: it holds control characters, white space at an end, or too much.
    """
    if len(text) > MAX_LINE:
        raise ValueError(
            f"must have at most {MAX_LINE:,} characters"
        )  # normalizing takes the square of long runs of marks
    if not text.isprintable():
        raise ValueError("must not hold control characters, line breaks or marks that turn the direction of writing")
    if text != text.strip():
        raise ValueError("must not begin or end with white space")
    return normalize("NFC", text)


def label_key(label: str) -> str:
    """Return what two labels have in common that no model can tell apart.

    CLIP's tokenizers fold width, case and white space (`ftfy`, then lower case, as in the published vocabulary).
    """
    return " ".join(normalize("NFKC", label).casefold().split())


def _rfc3339(value: object) -> object:
    if not isinstance(value, datetime) and not (isinstance(value, str) and re.match(r"\d{4}-\d\d-\d\d[Tt ]", value)):
        raise ValueError("must be a time as RFC 3339 writes it, e.g. 2026-11-02T09:00:00Z")
    return value


def _known_century(moment: datetime) -> datetime:
    if moment.year not in YEARS:
        raise ValueError(f"must lie between the years {YEARS[0]} and {YEARS[-1]}")
    return moment


Label = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(printable)]
"""A class name, as it stands in prompts; in Unicode's normal form C, so that two spellings of it are one."""

Fraction = Annotated[float, Strict(), Field(ge=0, le=1, allow_inf_nan=False)]
"""A share in [0, 1]."""

Moment = Annotated[datetime, BeforeValidator(_rfc3339), AfterValidator(_known_century)]
"""A time with a date, in a century that every part can store."""

Reference = Annotated[str, Field(min_length=1, max_length=1024)]
"""An id, a path or the name of something elsewhere."""

Printable = Annotated[str, AfterValidator(printable)]
"""A line of text."""
