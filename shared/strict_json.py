"""JSON bodies, read strictly: what Postgres cannot store, or two parsers would read differently, is refused."""

import json
import math
from typing import NoReturn

from pydantic import JsonValue

MAX_DEPTH = 32
INTEGER_BITS = 63


def loads(body: bytes) -> JsonValue:
    """Parse a body.

    Raises:
        json.JSONDecodeError: the body is not UTF-8, not JSON, or holds NaN, an infinity, an integer beyond 64 bits, a
            field twice, NUL or half of a surrogate pair, or is nested too deeply.
    """
    try:
        value: JsonValue = json.loads(
            body.decode(),
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_integer,
            object_pairs_hook=_without_twins,
        )
        _check(value, MAX_DEPTH)
    except json.JSONDecodeError as error:
        raise json.JSONDecodeError(f"{error.msg}, in line {error.lineno}, column {error.colno}", "", 0) from error
    except UnicodeDecodeError as error:
        raise json.JSONDecodeError(f"byte {error.start} is not valid UTF-8", "", 0) from error
    except RecursionError as error:
        raise json.JSONDecodeError(f"it is nested more than {MAX_DEPTH} levels deep", "", 0) from error
    except ValueError as error:
        raise json.JSONDecodeError(str(error), "", 0) from error
    return value


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not a JSON number")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"the number {digits[:20]} is out of range")
    return number


def _integer(digits: str) -> int:
    if len(digits) > 20 or int(digits).bit_length() > INTEGER_BITS:
        raise ValueError(f"the number {digits[:20]}{'...' if len(digits) > 20 else ''} is out of range")
    return int(digits)


def _without_twins(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the field {next(name for name in names if names.count(name) > 1)!r} is given twice")
    return fields


def _check(value: JsonValue, depth: int) -> None:
    if depth == 0:
        raise RecursionError
    if isinstance(value, str):
        if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
            raise ValueError("a string holds a character that is no text (NUL, or half of a surrogate pair)")
    elif isinstance(value, dict):
        for name, item in value.items():
            _check(name, depth)
            _check(item, depth - 1)
    elif isinstance(value, list):
        for item in value:
            _check(item, depth - 1)
