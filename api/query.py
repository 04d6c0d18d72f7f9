"""What stands behind the question mark: only what the route declares, each once, none empty.

A parameter that is ignored is worse than one that is refused: `?validateOnly=true` would make a
real erasure."""

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from types import NoneType
from typing import Any, get_args, get_origin

from fastapi import Request
from fastapi.dependencies.models import Dependant

from shared.errors import FieldError, InvalidRequest
from shared.schemas.validation_errors import cut

SHOWN = 60
"""Characters of an unknown name that an error repeats."""


def declared(dependant: Dependant, extra: Mapping[str, Any] | None) -> dict[str, bool]:
    """Return the query parameters of a route, and whether each may be given several times.

    `extra` is what the route adds to its entry in the OpenAPI document: the parameters that it
    reads itself."""
    found = {
        name: several for part in _with_dependencies(dependant) for name, several in _own(part)
    }
    listed = (extra or {}).get("parameters", ())
    return found | {entry["name"]: False for entry in listed if entry["in"] == "query"}


def check(request: Request, known: Mapping[str, bool]) -> None:
    """Refuse a request with other parameters than a route has.

    Raises:
        InvalidRequest: naming each wrong parameter, and those that there are.
    """
    given = request.query_params.multi_items()
    if given:
        wrong = list(_wrong(given, known, "query parameter"))
        if wrong:
            raise InvalidRequest(wrong)


def check_form(fields: Iterable[tuple[str, object]], known: Mapping[str, bool]) -> None:
    """Refuse a form with fields that are not known; the ones that are stand for query parameters.

    Raises:
        InvalidRequest: naming each wrong field.
    """
    wrong = [
        FieldError("/" + e.parameter if e.parameter else "", e.detail)
        for e in _wrong(fields, known, "field")
    ]
    if wrong:
        raise InvalidRequest(wrong)


def _wrong(
    given: Iterable[tuple[str, object]], known: Mapping[str, bool], what: str
) -> Iterator[FieldError]:
    seen: dict[str, int] = {}
    empty: set[str] = set()
    for name, value in given:
        seen[name] = seen.get(name, 0) + 1
        if value == "":
            empty.add(name)
    for name, times in seen.items():
        said = cut(name, SHOWN)
        if name not in known:
            yield FieldError(
                "", f"{what} {said!r} is not known here; {_known_ones(name, known)}", said or "?"
            )
        elif times > 1 and not known[name]:
            yield FieldError("", f"{what} {said} is given {times} times; give it once", said)
        elif name in empty:
            yield FieldError("", f"{what} {said} is empty; give it a value, or leave it out", said)


def _known_ones(name: str, known: Mapping[str, bool]) -> str:
    if not known:
        return "this route takes none"
    folded = {one.replace("_", "").lower(): one for one in known}
    near = get_close_matches(name[:SHOWN].replace("_", "").lower(), folded, n=1, cutoff=0.75)
    guess = f"did you mean {folded[near[0]]}? " if near else ""
    return f"{guess}known are {', '.join(sorted(known))}"


def _own(dependant: Dependant) -> Iterator[tuple[str, bool]]:
    for field in dependant.query_params:
        yield field.alias, _takes_several(field.field_info.annotation)


def _with_dependencies(dependant: Dependant) -> Iterator[Dependant]:
    yield dependant
    for part in dependant.dependencies:
        yield from _with_dependencies(part)


def _takes_several(annotation: object) -> bool:
    """True for a list, also for one that may be left out."""
    if get_origin(annotation) in (list, tuple, set, frozenset):
        return True
    return any(
        _takes_several(part)
        for part in get_args(annotation)
        if part is not NoneType and get_origin(part)
    )
