"""Intervals in closed form: against scipy, and the number of images that a bound needs against counting."""

from pathlib import Path

import pytest
from scipy.stats import binomtest

from shared.intervals import (
    highest_lower_end,
    images_for_lower_end,
    images_for_upper_end,
    lowest_upper_end,
    lowest_upper_end_of_drop,
    paired_interval,
    table,
    wilson_interval,
)


@pytest.mark.parametrize(("hits", "n"), [(0, 1), (1, 1), (0, 16), (1, 40), (20, 40), (39, 40), (0, 73), (500, 1000)])
def test_an_interval_is_that_of_scipy(hits: int, n: int) -> None:
    expected = binomtest(hits, n).proportion_ci(confidence_level=0.95, method="wilson")
    assert wilson_interval(hits, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_a_share_of_no_images_has_none() -> None:
    with pytest.raises(ValueError, match="no images"):
        wilson_interval(0, 0)


@pytest.mark.parametrize("bound", [0.01, 0.02, 0.05, 0.1, 0.2, 0.25, 1 / 3, 0.5, 0.9])
def test_the_least_number_of_images_is_found_by_counting_too(bound: float) -> None:
    counted = next(n for n in range(1, 1000) if lowest_upper_end(n) <= bound)
    assert images_for_upper_end(bound) == counted
    assert images_for_lower_end(1 - bound) == next(n for n in range(1, 1000) if highest_lower_end(n) >= 1 - bound)


def test_numbers_that_documents_name() -> None:
    assert (images_for_upper_end(0.2), images_for_upper_end(0.05)) == (16, 73)
    assert lowest_upper_end(20) == pytest.approx(0.161, abs=0.001)
    assert lowest_upper_end(16) == pytest.approx(0.194, abs=0.001)


@pytest.mark.parametrize("bound", [0, -0.1, 1e-300])
def test_no_number_of_images_shows_that_nothing_is_left(bound: float) -> None:
    assert images_for_upper_end(bound) is None
    assert images_for_lower_end(1 - bound) is None


@pytest.mark.parametrize("bound", [1, 2.5])
def test_a_bound_that_all_results_meet_needs_one_image(bound: float) -> None:
    assert images_for_upper_end(bound) == 1
    assert images_for_lower_end(1 - bound) == 1


@pytest.mark.parametrize("n", [1, 2, 3, 10, 37])
def test_the_best_end_of_a_drop_is_the_best_of_all_outcomes(n: int) -> None:
    ends = [paired_interval(lost, won, n)[1] for lost in range(n + 1) for won in range(n + 1 - lost)]
    assert lowest_upper_end_of_drop(n) == min(ends)


def test_the_table_in_the_documentation_is_the_one_that_is_made() -> None:
    assert table() in (Path(__file__).parents[3] / "docs" / "audit.md").read_text(encoding="utf-8")
    assert "| 0.05 | 0.95 | 73 | 110 | 142 |" in table()
