"""What all schemas share."""

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Annotated, Any, Self
from unicodedata import normalize

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    ValidationError,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from shared.names import name_key

YEARS = range(2000, 2100)
MAX_LINE = 2000
"""Characters of a line of text, whatever it is."""


class Schema(BaseModel):
    """A value that came from outside or goes outside. Unknown fields are errors: a misspelt one
    is never ignored.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, populate_by_name=True, serialize_by_alias=True
    )

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy; what was computed of the fields before (`cached_property`) is not taken
        along.
        """
        copy = super().model_copy(update=update, deep=deep)
        for name in copy.__dict__.keys() - type(self).model_fields.keys():
            del copy.__dict__[name]
        return copy


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
        raise ValueError(
            "must not hold control characters, line breaks or marks that turn the direction of "
            "writing"
        )
    if text != text.strip():
        raise ValueError("must not begin or end with white space")
    return normalize("NFC", text)


def wrong_fields(
    title: str, errors: Iterable[tuple[tuple[str | int, ...], str]]
) -> ValidationError:
    """Return an error for a model's validator to raise: where below the model something is wrong,
    and what.

    A `ValueError` would be about the model as a whole, and pydantic would put the name of a
    union's member in its place."""
    details = [
        InitErrorDetails(
            type=PydanticCustomError("value_error", "{error}", {"error": detail}),
            loc=loc,
            input=None,
        )
        for loc, detail in errors
    ]
    return ValidationError.from_exception_data(title, details)


def _read_by_clip(label: str) -> str:
    if not name_key(label):
        raise ValueError("must hold a letter, a digit or a sign: CLIP reads nothing of it")
    return label


def _rfc3339(value: object) -> object:
    if not isinstance(value, datetime) and not (
        isinstance(value, str) and re.match(r"\d{4}-\d\d-\d\d[Tt ]", value)
    ):
        raise ValueError("must be a time as RFC 3339 writes it, e.g. 2026-11-02T09:00:00Z")
    return value


def _known_century(moment: datetime) -> datetime:
    if moment.year not in YEARS:
        raise ValueError(f"must lie between the years {YEARS[0]} and {YEARS[-1]}")
    return moment


Label = Annotated[
    str,
    Field(min_length=1, max_length=100),
    AfterValidator(printable),
    AfterValidator(_read_by_clip),
]
"""A name, as it stands in prompts. Two of them are one where `shared.names.name_key` says so."""

Fraction = Annotated[float, Strict(), Field(ge=0, le=1, allow_inf_nan=False)]
"""A share in [0, 1]."""

Moment = Annotated[datetime, BeforeValidator(_rfc3339), AfterValidator(_known_century)]
"""A time with a date, in a century that every part can store."""

Reference = Annotated[str, Field(min_length=1, max_length=1024)]
"""An id, a path or the name of something elsewhere."""

Printable = Annotated[str, AfterValidator(printable)]
"""A line of text."""

Identifier = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(printable)]
"""What somebody calls something elsewhere; never empty, for two empty ones would be one."""
