"""How many images of a set are held out of it. The worker draws them (`worker/data/splits.py`);
the gateway counts them.
"""

TEST_SHARE = 0.2
"""Of the images of `data.forget` and `data.retain`, where no test set is given: measured on, and
not learnt from.
"""
CALIBRATION_SHARE = 0.25
"""Of those that are left to learn from."""


def part_of(count: int, share: float) -> int:
    """Return how many of `count` images go into the part: `share` of them, at least one of two
    or more, never all.
    """
    return min(count - 1, max(1, round(share * count)))
