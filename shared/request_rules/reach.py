"""Whether a bound on a measure can be met at all with the images that a request gives: known before
the job.

A measure is judged by the worse end of its 95 % interval, and that end is no better than the
number of images allows: with none of 20 recognised, the upper end is 0.16. What is checked is
every share with a Wilson interval, every drop with an interval for matched pairs, and whether
there are images enough to take a measure at all. Nothing is said of measures whose best end has
no closed form: areas under ROC curves, ratios by bootstrap, what compares with a reference."""

from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from shared.errors import FieldError
from shared.intervals import (
    highest_lower_end,
    images_for_lower_end,
    images_for_upper_end,
    lowest_upper_end,
    lowest_upper_end_of_drop,
)
from shared.request_rules.image_counts import Place, total
from shared.schemas.audit import MeasureThreshold
from shared.schemas.measure_catalogue import GIVEN, SAMPLES
from shared.schemas.methods.synthetic import HELD_OUT_SHARE, MOST_SAMPLES, held_out_samples

PROBED, RELEARNT, GIVEN_AT_MOST = 1000, 64, 256
"""At most so many images are looked at: of a class by a probe, after relearning, of those given
to be forgotten.
"""
SAMPLES_AT_MOST = held_out_samples(MOST_SAMPLES)
"""Held out of each class."""
MOST_PAIRS = 10**6

Count = Callable[["Counts"], int | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What one place of a request offers to a measure. None is an unknown number."""

    place: Place
    given: int | None
    """Images that the method learns to forget; 0 where there are none."""


def _forgotten(counts: Counts) -> int | None:
    return counts.place.forgotten


def _largest_class(counts: Counts) -> int | None:
    return (
        None
        if None in counts.place.forget
        else max(n for n in counts.place.forget if n is not None)
    )


def _probed(counts: Counts) -> int | None:
    return total(None if n is None else min(n, PROBED) for n in counts.place.forget)


def _relearnt(counts: Counts) -> int | None:
    """Images given to be forgotten are learnt from where there are some, else every other one of
    those measured on.
    """
    count = counts.place.forgotten
    if count is None or counts.given is None:
        return None if count is None else min(count, RELEARNT)
    return min(count if counts.given else count // 2, RELEARNT)


def _lessons(counts: Counts) -> int | None:
    count = counts.place.forgotten
    if counts.given != 0:
        return counts.given
    return None if count is None else count - count // 2


def _members(counts: Counts) -> int | None:
    return None if counts.given is None else min(counts.given, GIVEN_AT_MOST)


def _rest(counts: Counts) -> int | None:
    return counts.place.rest


def _siblings(counts: Counts) -> int | None:
    return counts.place.siblings


WORDINGS = ("worst_prompt", "template", "synonym", "plural", "translation", "misspelling")
SHOTS = (1, 5, 16, 64)

PROBES = ("probe_recall", "penultimate_probe_recall", "prototype_recall")
MEMBERSHIP = ("membership_tpr_1", "membership_tpr_01")

COUNTED: dict[str, Count] = {
    **dict.fromkeys(
        ("forget_recall", "original_text_recall", "original_image_recall", "hypernym_recall"),
        _forgotten,
    ),
    **{f"{wording}_recall": _largest_class for wording in WORDINGS},
    **dict.fromkeys(PROBES, _probed),
    **dict.fromkeys(("retain_accuracy", "near_accuracy", "far_accuracy"), _rest),
    **dict.fromkeys(("retain_drop", "near_drop", "far_drop", "worst_transfer_drop"), _rest),
    **{f"relearn_recall_{k}": _relearnt for k in SHOTS},
    **dict.fromkeys(MEMBERSHIP, _members),
    "benign_recall": _relearnt,
    "sibling_accuracy": _siblings,
}
"""Of each measure that is checked, the number of images, at most, that it is taken over."""
DROPS = frozenset({"retain_drop", "near_drop", "far_drop", "worst_transfer_drop"})
"""Of these, the measures with an interval for matched pairs; the others are shares."""

CAPS: dict[str, int] = {
    **{f"relearn_recall_{k}": RELEARNT for k in SHOTS},
    **dict.fromkeys(MEMBERSHIP, GIVEN_AT_MOST),
    "benign_recall": RELEARNT,
}

NEEDED: dict[str, tuple[int, Count, str]] = {
    **{
        f"relearn_recall_{k}": (k, _lessons, "images to learn from besides those it is measured on")
        for k in SHOTS
    },
    "relearn_steps": (16, _lessons, "images to learn from besides those it is measured on"),
    "relearn_ratio": (16, _lessons, "images to learn from besides those it is measured on"),
    "membership_tpr_1": (
        100,
        _forgotten,
        "images of what is forgotten that the method does not see",
    ),
    "membership_tpr_01": (
        1000,
        _forgotten,
        "images of what is forgotten that the method does not see",
    ),
    "sibling_accuracy": (1, _siblings, "image of the same kind that stays"),
    **dict.fromkeys(
        (*PROBES, "probe_leakage", "benign_recall"), (2, _forgotten, "images of what is forgotten")
    ),
}
"""Of a measure, how many images it needs to be taken at all, and of what, where one of what is
forgotten is not enough.
"""


def lacks_images(measure: str, counts: Counts) -> str | None:
    """Return why a measure will not be taken at a place, None where it may be."""
    needed, count, of_what = NEEDED.get(measure, (0, _forgotten, ""))
    there = count(counts)
    if there is None or there >= needed:
        return None
    return f"{measure} needs {needed} {of_what}; {counts.place.name!r} has {there}"


def unmet(
    threshold: MeasureThreshold, counts: Counts, others: tuple[str, ...] = ()
) -> Iterator[FieldError]:
    """Yield the bounds of a threshold, `max` or `min`, that no result at a place could meet, and
    what would do.

    Args:
        threshold: what was asked.
        counts: of one place where it is judged.
        others: the other places where the measure is taken.
    """
    count, of_pairs = COUNTED.get(threshold.measure), threshold.measure in DROPS
    n = count(counts) if count else None
    if not n:
        return
    least, most = lowest_upper_end(n), highest_lower_end(n)
    if of_pairs:
        least, most = lowest_upper_end_of_drop(n), -lowest_upper_end_of_drop(n)
    if threshold.max is not None and least > threshold.max:
        wanted = _pairs_for(threshold.max) if of_pairs else images_for_upper_end(threshold.max)
        yield FieldError(
            "max",
            _why(threshold, counts, n, others, f"upper end cannot fall under {least:.2g}", wanted),
        )
    if threshold.min is not None and most < threshold.min:
        wanted = _pairs_for(-threshold.min) if of_pairs else images_for_lower_end(threshold.min)
        yield FieldError(
            "min", _why(threshold, counts, n, others, f"lower end cannot exceed {most:.2g}", wanted)
        )


def _pairs_for(bound: float) -> int | None:
    """Return how many pairs the upper end of a drop needs to reach `bound`, which falls with
    their number.
    """
    numbers = range(1, MOST_PAIRS + 1)
    place = bisect_left(numbers, -bound, key=lambda n: -lowest_upper_end_of_drop(n))
    return numbers[place] if place < len(numbers) else None


def _why(
    threshold: MeasureThreshold,
    counts: Counts,
    n: int,
    others: tuple[str, ...],
    end: str,
    wanted: int | None,
) -> str:
    place, most = counts.place, _most(threshold.measure, counts)
    images = f"{n} {'sample' if place.name == SAMPLES else 'image'}{'' if n == 1 else 's'}"
    of = GIVEN if COUNTED[threshold.measure] is _members else place.name
    words = f"cannot be met: with the {images} of {of!r} the {end}; "
    if wanted is None:
        words += "no number of them is enough: give another bound"
    elif most is not None and wanted > most:
        words += (
            f"{wanted} are needed, and {threshold.measure} is taken over {most} at most: "
            "give "
            "another bound"
        )
    else:
        words += f"{wanted} are needed"
        words += f" (samples_per_class {_samples_for(threshold.measure, counts, wanted)})" * (
            place.name == SAMPLES
        )
    if others and threshold.where is None:
        words += f", or name the place to judge in where: {', '.join(others)}"
    return words


def _most(measure: str, counts: Counts) -> int | None:
    """Return how many images a measure is taken over at most, however many there are; None
    without a limit.
    """
    classes = len(counts.place.forget)
    if counts.place.name == SAMPLES:
        return SAMPLES_AT_MOST * (classes if COUNTED[measure] is _forgotten else 1)
    return PROBED * classes if COUNTED[measure] is _probed else CAPS.get(measure)


def _samples_for(measure: str, counts: Counts, wanted: int) -> int:
    """Return the samples of each class that are to be made so that `wanted` are held out, of it
    or of all classes.
    """
    classes = len(counts.place.forget) if COUNTED[measure] is _forgotten else 1
    return round(-(-wanted // classes) / HELD_OUT_SHARE)
