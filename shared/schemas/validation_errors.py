"""Validation errors in plain words: which field, what was wrong, what to do."""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from shared.errors import FieldError, InvalidRequest

Location = Sequence[str | int]

MAX_READ = 200
"""How many of pydantic's errors are read; it gives every one, and a body of a megabyte has a
hundred thousand.
"""
MAX_SENTENCE = 500
MAX_POINTER = 300


def invalid_request(
    error: ValidationError, body: object, *, hidden: Collection[str] = ()
) -> InvalidRequest:
    """Return a pydantic error about `body` as ours; what fields called as in `hidden` hold is
    not repeated.
    """
    errors = error.errors(include_url=False)
    told = field_errors(errors, body, hidden=hidden)
    return InvalidRequest(told, more=max(0, len(errors) - MAX_READ))


def field_errors(
    errors: Sequence[Mapping[str, Any]], body: object, *, hidden: Collection[str] = ()
) -> list[FieldError]:
    """Turn what pydantic says about `body` into one sentence for each wrong field, for the first
    `MAX_READ` errors.

    Pydantic reports every member of a union: those of the same field become one sentence, and a
    member that failed as a whole is left out where another one got further."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for error in errors[:MAX_READ]:
        known = error if set(hidden).isdisjoint(error["loc"]) else {**error, "input": None}
        found.setdefault(pointer(body, error["loc"], absent=error["type"] == "missing"), []).append(
            known
        )
    above = {at[: slash.start()] for at in found for slash in re.finditer("/", at)}
    return [
        FieldError(cut(at, MAX_POINTER), cut(_sentence(found[at])))
        for at in found
        if at not in above
    ]


def cut(text: str, length: int = MAX_SENTENCE) -> str:
    """Return a text of bounded length: what is told of a request must not grow with it."""
    return text if len(text) <= length else text[: length - 3] + "..."


def _sentence(errors: Sequence[Mapping[str, Any]]) -> str:
    words = " or ".join(dict.fromkeys(_words(error) for error in errors))
    given = errors[0].get("input")
    known = errors[0]["type"] in ("missing", "value_error", "extra_forbidden")
    shown = isinstance(given, bool | int | float) or (isinstance(given, str) and len(given) <= 100)
    return f"{words}, but is {json.dumps(given)}" if shown and not known else words


def _words(error: Mapping[str, Any]) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind == "missing":
        return "is missing and has no default"
    if kind == "extra_forbidden":
        return "is not a field that is known here; correct its spelling or remove it"
    if kind == "value_error":
        return str(context["error"])
    if kind == "union_tag_not_found":
        return f"must have a field {context['discriminator']} that says what it is"
    if kind == "union_tag_invalid":
        tag = cut(str(context["tag"]), 100)
        return (
            f"has {context['discriminator']} {tag!r}; it must be one of {context['expected_tags']}"
        )
    if kind in ("model_attributes_type", "model_type", "dict_type"):
        return "must be an object"
    words = (
        str(error["msg"])
        .removeprefix("Input ")
        .replace(" after validation", "")
        .replace("should", "must")
    )
    return (words[:1].lower() + words[1:]).replace("tuple", "list")


def pointer(body: object, location: Location, *, absent: bool = False) -> str:
    """Return the RFC 6901 pointer of a pydantic location.

    Pydantic mixes the names of union members into its locations; what is no key of `body` is
    left out. With `absent` the last part is a field that is missing."""
    kept = _resolve(body, tuple(location), absent)
    parts = (
        location
        if kept is None
        else [part for part, keep in zip(location, kept, strict=True) if keep]
    )
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def _resolve(value: object, location: tuple[str | int, ...], absent: bool) -> list[bool] | None:
    """Say for each part of `location` whether it is a key on the way down `value`; None where there
    is no such way.

    A class may be called like a union member: of several ways, the one that keeps the later
    parts is the right one."""
    if not location:
        return []
    if absent and len(location) == 1:
        return [True] if isinstance(value, dict) else None
    ways = []
    inside = _inside(value, location[0])
    if inside is not _ABSENT and (way := _resolve(inside, location[1:], absent)) is not None:
        ways.append([True, *way])
    if (way := _resolve(value, location[1:], absent)) is not None:
        ways.append([False, *way])
    return max(ways, key=lambda way: way[::-1], default=None)


_ABSENT = object()


def _inside(value: object, part: str | int) -> object:
    """Return what `value` holds under a key or an index; `_ABSENT` where there is nothing."""
    if isinstance(value, dict):
        return value.get(part, _ABSENT)
    if isinstance(value, list | tuple) and isinstance(part, int) and 0 <= part < len(value):
        return value[part]
    return _ABSENT
