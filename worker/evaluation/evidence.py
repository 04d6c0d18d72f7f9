"""What the measurements, and not the method's name, show to have been removed.

`association`: name and image no longer find each other: recall has gone by the scored prompts and
under the worst other wording. `image_encoder`: the image tower has lost it by itself: recall has
gone with the original text tower put back, and every probe of its features that was taken (linear,
before the last map, five examples) finds the class less often, by ten points at least and beyond
both intervals. `both`, or `none`. The strongest measure to the contrary decides: one probe that
finds the class as before is enough not to claim that the encoder has lost it.

Recall has gone where the upper end of its 95 % interval lies at or below a quarter of the
original's recall (of the worst wording: half, it is the largest of hundreds). Real images alone
count: samples are made to be recognised by the very towers that are judged."""

from collections.abc import Sequence
from typing import Literal

from shared.schemas.measure_catalogue import SAMPLES
from shared.schemas.measures import Measure

Evidence = Literal["none", "association", "image_encoder", "both"]

GONE, GONE_WORST = 0.25, 0.5
PROBE_DROP = 0.1
PROBES = ("probe_recall", "penultimate_probe_recall", "prototype_recall")


def evidence(measures: Sequence[Measure]) -> Evidence | None:
    """Return the evidence level, None where no real image of what is forgotten was measured.

    Where several sets show it, all of them must.
    """
    real = [m for m in measures if m.where != SAMPLES]
    recall = [m for m in real if m.name == "forget_recall"]
    if not recall:
        return None
    worst = [m for m in real if m.name == "worst_prompt_recall"]
    swapped = [m for m in real if m.name == "original_text_recall"]
    probes = [m for m in real if m.name in PROBES]
    association = all(_gone(m, GONE) for m in recall) and all(_gone(m, GONE_WORST) for m in worst)
    encoder = bool(probes) and bool(swapped)
    encoder = encoder and all(_gone(m, GONE) for m in swapped) and all(map(_found_less, probes))
    if association:
        return "both" if encoder else "association"
    return "image_encoder" if encoder else "none"


def _gone(measure: Measure, share: float) -> bool:
    if measure.original is None or measure.unlearned.high is None:
        raise ValueError(f"{measure.name} has no original or no interval")
    return measure.unlearned.high <= share * measure.original.value


def _found_less(measure: Measure) -> bool:
    """True where a probe finds at least ten points less, and the two intervals do not touch."""
    old, new = measure.original, measure.unlearned
    if old is None or old.low is None or new.high is None:
        raise ValueError(f"{measure.name} has no original or no interval")
    return old.value - new.value >= PROBE_DROP and new.high < old.low
