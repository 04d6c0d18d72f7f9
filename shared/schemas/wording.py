"""Validation errors in plain words: which field, what was wrong, what to do."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from shared.errors import FieldError, InvalidRequest

Location = Sequence[str | int]


def invalid_request(error: ValidationError, body: object) -> InvalidRequest:
    """Return a pydantic error about `body` as ours."""
    return InvalidRequest(field_errors(error.errors(include_url=False), body))


def field_errors(errors: Iterable[Mapping[str, Any]], body: object) -> list[FieldError]:
    """Turn what pydantic says about `body` into one sentence for each wrong field.

    Pydantic reports every member of a union: those of the same field become one sentence, and a member that failed as
    a whole is left out where another one got further.
    """
    found: dict[str, list[Mapping[str, Any]]] = {}
    for error in errors:
        found.setdefault(pointer(body, error["loc"], absent=error["type"] == "missing"), []).append(error)
    deepest = [at for at in found if not any(other.startswith(at + "/") for other in found)]
    return [FieldError(at, _sentence(found[at])) for at in deepest]


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
        return f"has {context['discriminator']} {context['tag']!r}; it must be one of {context['expected_tags']}"
    if kind in ("model_attributes_type", "model_type", "dict_type"):
        return "must be an object"
    words = str(error["msg"]).removeprefix("Input ").replace(" after validation", "").replace("should", "must")
    return (words[:1].lower() + words[1:]).replace("tuple", "list")


def pointer(body: object, location: Location, *, absent: bool = False) -> str:
    """Return the RFC 6901 pointer of a pydantic location.

    Pydantic mixes the names of union members into its locations; what is no key of `body` is left out. With `absent`
    the last part is a field that is missing.
    """
    kept = _resolve(body, tuple(location), absent)
    parts = location if kept is None else [part for part, keep in zip(location, kept, strict=True) if keep]
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def _resolve(value: object, location: tuple[str | int, ...], absent: bool) -> list[bool] | None:
    """Say for each part of `location` whether it is a key on the way down `value`; None where there is no such way.

    A class may be called like a union member: of several ways, the one that keeps the later parts is the right one.
    """
    if not location:
        return []
    if absent and len(location) == 1:
        return [True] if isinstance(value, dict) else None
    ways = []
    inside = _items(value)
    if location[0] in inside and (way := _resolve(inside[location[0]], location[1:], absent)) is not None:
        ways.append([True, *way])
    if (way := _resolve(value, location[1:], absent)) is not None:
        ways.append([False, *way])
    return max(ways, key=lambda way: way[::-1], default=None)


def _items(value: object) -> Mapping[str | int, object]:
    if isinstance(value, list | tuple):
        return dict(enumerate(value))
    return value if isinstance(value, dict) else {}
