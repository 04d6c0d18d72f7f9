"""Numbers as the page writes them."""

import pytest

from shared.schemas.measures import Value
from shared.schemas.report import Change, Estimate
from worker.report_page import figures


def flat(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.9875, "share", "98.8 %"),
        (-0.00001, "share", "0.0 %"),
        (-0.012, "points", "\u22121.2"),
        (0.012, "points", "+1.2"),
        (-0.0001, "points", "0.0"),
        (12345.0, "count", "12,345"),
        (-0.1234, "similarity", "\u22120.123"),
        (1.5, "ratio", "1.50"),
    ],
)
def test_a_number_in_its_unit(value: float, unit: str, text: str) -> None:
    assert flat(figures.number(value, unit)) == text


def test_an_interval_is_written_in_the_unit_or_not_at_all() -> None:
    assert flat(figures.value_interval(Value(value=0.5, low=0.25, high=0.75), "share")) == "25.0 to 75.0 %"
    assert flat(figures.value_interval(Value(value=2, low=1, high=3), "count")) == "1 to 3"
    assert figures.value_interval(Value(value=0.5), "share") == ""


def test_what_was_gained_and_lost() -> None:
    def change(before: float, after: float) -> Change:
        return Change(**{
            when: Estimate(value=value, n=200, low=value, high=value)
            for when, value in (("before", before), ("after", after))
        })  # fmt: skip

    assert [figures.points(change(*pair)) for pair in ((0.9, 0.85), (0.5, 0.5), (0.1, 0.2))] == [
        "\u22125.0",
        "0.0",
        "+10.0",
    ]
    assert figures.hits(change(0.995, 0.0).before) == 199


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (99.94, "99.9 s"), (99.96, "1 min 40 s"), (3600, "60 min 00 s")]
)
def test_a_duration(seconds: float, text: str) -> None:
    assert figures.duration(seconds) == text


def test_sizes() -> None:
    assert [figures.size(size) for size in (None, 5 * 2**20, 3 * 2**29)] == ["\u2013", "5 MiB", "1.50 GiB"]
