"""Bodies that a lenient parser would let through."""

import json

import pytest

from shared.strict_json import MAX_DEPTH, TooManyMembers, loads


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "line 1, column 1"),
        (b"{", "line 1, column 2"),
        (b'{"a": 1}}', "Extra data"),
        (b'"\xff"', "byte 1 is not valid UTF-8"),
        (b"[NaN]", "NaN is not a JSON number"),
        (b"[-Infinity]", "-Infinity is not a JSON number"),
        (b"[1e999]", "1e999 is out of range"),
        (b"[9223372036854775808]", "9223372036854775808 is out of range"),
        (b"[" + b"9" * 10_000 + b"]", "is out of range"),
        (b'{"a": 1, "b": 2, "a": 3}', "the field 'a' is given twice"),
        (b'"\\u0000"', "NUL"),
        (b'{"\\ud800": 1}', "surrogate"),
        (b'{"digits": 1, "digits": 2}', "the field 'digits' is given twice"),
        (b'{"' + b"n" * 500 + b'": 1, "' + b"n" * 500 + b'": 2}', "...' is given twice"),
        (b"[" + b"1," * 1000 + b"1]", "at most 1000 items, and has 1,001"),
        (b"[" + b"1," * 60_000 + b"1]", "more than 50,000 values"),
        (b"[" * 40_000, "nested more than"),
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "nested more than"),
    ],
)
def test_what_is_refused_says_why(body, words):
    with pytest.raises(json.JSONDecodeError) as raised:
        loads(body)

    assert words in raised.value.msg


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"a": [1, 2.5, null, true, "\xc3\xa9\\u00e9\\ud83d\\ude00"]}', {"a": [1, 2.5, None, True, "éé😀"]}),
        (b"9223372036854775807", 9223372036854775807),
        (b"[" + b"1," * 999 + b"1]", [1] * 1000),
        (b"[" * MAX_DEPTH + b"]" * MAX_DEPTH, json.loads("[" * MAX_DEPTH + "]" * MAX_DEPTH)),
    ],
)
def test_what_is_sound_is_read(body, value):
    assert loads(body) == value


def test_what_is_too_long_is_pointed_at():
    with pytest.raises(TooManyMembers) as raised:
        loads(b'{"a": [0, {"b/c": [' + b"1," * 1000 + b"1]}]}")

    assert raised.value.pointer == "/a/1/b~1c"
