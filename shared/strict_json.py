"""JSON bodies, read strictly: what Postgres cannot store, or two parsers would read differently, is
refused.

The work is bounded by what is sent: each rule costs one pass, and a body of more values than any
request has is refused before it is parsed."""

import json
import math
import re
from collections.abc import Iterator
from typing import NoReturn

from pydantic import JsonValue

MAX_DEPTH = 32
MAX_VALUES = 50_000
MAX_MEMBERS = 1000
"""Of one list or object: no field of a request takes more."""
INTEGER_BITS = 63
SHOWN = 40
"""Characters of a name or number that an error repeats."""

_TOO_DEEP = f"it is nested more than {MAX_DEPTH} levels deep"


class UnacceptableJson(json.JSONDecodeError):
    """A body that is no JSON, or none that is taken."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "", 0)


class TooManyMembers(UnacceptableJson):
    """One list or object of a body, at `pointer`, holds more than any field takes."""

    def __init__(self, detail: str, pointer: str) -> None:
        super().__init__(f"{pointer[:200] or '/'} {detail}")
        self.detail, self.pointer = detail, pointer


def loads(body: bytes) -> JsonValue:
    """Parse a body.

    Raises:
        json.JSONDecodeError: the body is not UTF-8, not JSON, or holds NaN, an infinity, an integer
            beyond 64 bits, a field twice, NUL or half of a surrogate pair, is nested too deeply, or
            holds too many values.
    """
    try:
        _check_size(body)
        value: JsonValue = json.loads(
            body.decode(),
            parse_constant=_refuse_constant,
            parse_float=_finite,
            object_pairs_hook=_without_twins,
        )
        _check(value, MAX_DEPTH, ())
    except UnacceptableJson:
        raise
    except json.JSONDecodeError as error:
        raise UnacceptableJson(
            f"{error.msg}, in line {error.lineno}, column {error.colno}"
        ) from None
    except UnicodeDecodeError as error:
        raise UnacceptableJson(f"byte {error.start} is not valid UTF-8") from None
    except RecursionError:
        raise UnacceptableJson(_TOO_DEEP) from None
    except ValueError:  # int() takes 4,300 digits and no more
        raise UnacceptableJson("a number of thousands of digits is out of range") from None
    return value


def _check_size(body: bytes) -> None:
    """Refuse a body of too many values by what stands between them, before any of them is made."""
    if body.count(b",") + body.count(b"[") + body.count(b"{") > MAX_VALUES:
        raise UnacceptableJson(f"it holds more than {MAX_VALUES:,} values, which no request needs")


def _refuse_constant(word: str) -> NoReturn:
    raise UnacceptableJson(f"{word} is not a JSON number")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise UnacceptableJson(f"the number {_cut(digits)} is out of range")
    return number


def _without_twins(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise UnacceptableJson(f"the field {_cut(_first_twin(pairs))!r} is given twice")
    return fields


def _first_twin(pairs: list[tuple[str, JsonValue]]) -> str:
    seen: set[str] = set()
    return next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]


def _check(value: JsonValue, depth: int, at: tuple[str | int, ...]) -> None:
    if depth == 0:
        raise UnacceptableJson(_TOO_DEEP)
    if isinstance(value, str):
        _check_text(value)
    elif isinstance(value, bool):
        pass
    elif isinstance(value, int):
        if value.bit_length() > INTEGER_BITS:
            raise UnacceptableJson(f"the number {_cut(str(value))} is out of range")
    elif isinstance(value, dict | list):
        if len(value) > MAX_MEMBERS:
            what = "items" if isinstance(value, list) else "fields"
            raise TooManyMembers(
                f"must have at most {MAX_MEMBERS} {what}, and has {len(value):,}", _pointer(at)
            )
        for name, item in _members(value):
            if isinstance(name, str):
                _check_text(name)
            if item is not None:
                _check(item, depth - 1, (*at, name))


def _members(
    value: dict[str, JsonValue] | list[JsonValue],
) -> Iterator[tuple[str | int, JsonValue]]:
    return iter(value.items()) if isinstance(value, dict) else iter(enumerate(value))


_NO_TEXT = re.compile("[\0\ud800-\udfff]")


def _check_text(text: str) -> None:
    if _NO_TEXT.search(text):
        raise UnacceptableJson(
            "a string holds a character that is no text (NUL, or half of a surrogate pair)"
        )


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


def _pointer(at: tuple[str | int, ...]) -> str:
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in at)
