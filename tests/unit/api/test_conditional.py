"""Byte ranges and entity tags, case by case from RFC 9110."""

import pytest

from api.conditional import ByteRange, Unsatisfiable, byte_range, matches


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-499", ByteRange(0, 500)),
        ("bytes=500-999", ByteRange(500, 1000)),
        ("bytes=500-", ByteRange(500, 1000)),
        ("bytes=-1", ByteRange(999, 1000)),
        ("bytes=-5000", ByteRange(0, 1000)),
        ("bytes=990-5000", ByteRange(990, 1000)),
        ("bytes=0-0", ByteRange(0, 1)),
        (None, None),
        ("", None),
        ("items=0-5", None),
        ("bytes=5-2", None),
        ("bytes=-", None),
        ("bytes=0-1,5-6", None),
        ("bytes=a-b", None),
    ],
)
def test_of_a_thousand_bytes(header, expected):
    assert byte_range(header, 1000) == expected


@pytest.mark.parametrize(("header", "size"), [("bytes=1000-", 1000), ("bytes=-0", 1000), ("bytes=0-0", 0)])
def test_no_such_byte(header, size):
    with pytest.raises(Unsatisfiable):
        byte_range(header, size)


def test_content_range_counts_from_zero_and_includes_the_last_byte():
    assert ByteRange(500, 1000).content_range(1234) == "bytes 500-999/1234"


@pytest.mark.parametrize(
    ("header", "same"),
    [('"3"', True), ('W/"3"', True), ('"1", "3"', True), ("*", True), ('"4"', False), ("3", False), (None, False)],
)
def test_entity_tags(header, same):
    assert matches(header, '"3"') is same
