"""Evidence and verdicts follow from measurements."""

import pytest

from shared.schemas.audit import MeasureThreshold
from shared.schemas.measure_catalogue import SAMPLES
from shared.schemas.measures import Measure, Value
from shared.schemas.report import TargetResult
from shared.schemas.request import Thresholds
from worker.evaluation.evidence import evidence
from worker.evaluation.findings import found
from worker.evaluation.intervals import wilson
from worker.gate import judge, judge_measure

N = 100


def share(hits: int) -> Value:
    return Value(**wilson(hits, N).model_dump())


def measured(name: str, after: int, before: int = 90, where: str = "own") -> Measure:
    return found(name, where, share(after), share(before))


def case(recall: int, worst: int, swapped: int, probe: int, where: str = "own") -> list[Measure]:
    hits = {
        "forget_recall": recall,
        "worst_prompt_recall": worst,
        "original_text_recall": swapped,
        "probe_recall": probe,
    }
    return [measured(name, after, where=where) for name, after in hits.items()]


@pytest.mark.parametrize(
    ("recall", "worst", "swapped", "probe", "level"),
    [
        (90, 90, 90, 90, "none"),
        (2, 90, 90, 90, "none"),
        (2, 20, 90, 90, "association"),
        (2, 20, 3, 90, "association"),
        (2, 20, 3, 50, "both"),
        (2, 20, 90, 50, "association"),
        (60, 90, 3, 90, "none"),
        (60, 90, 3, 50, "image_encoder"),
        (2, 20, 90, 82, "association"),
        (20, 20, 90, 90, "none"),
    ],
)
def test_levels(recall: int, worst: int, swapped: int, probe: int, level: str) -> None:
    assert evidence(case(recall, worst, swapped, probe)) == level


@pytest.mark.parametrize("name", ["penultimate_probe_recall", "prototype_recall"])
def test_one_probe_that_finds_it_as_before_is_enough_not_to_claim_the_encoder(name: str) -> None:
    assert evidence([*case(2, 20, 3, 50), measured(name, 40)]) == "both"
    assert evidence([*case(2, 20, 3, 50), measured(name, 89)]) == "association"


def test_swapped_towers_alone_do_not_show_that_the_encoder_lost_it() -> None:
    assert evidence([m for m in case(2, 20, 3, 50) if m.name != "probe_recall"]) == "association"


def test_samples_are_no_evidence() -> None:
    assert evidence(case(0, 0, 0, 0, where=SAMPLES)) is None


def test_every_set_must_show_it() -> None:
    assert evidence([*case(2, 20, 90, 90), measured("forget_recall", 80, where="other")]) == "none"


def test_few_images_are_no_evidence_of_absence() -> None:
    few = found("forget_recall", "own", Value(**wilson(0, 5).model_dump()), Value(**wilson(5, 5).model_dump()))
    assert evidence([few]) == "none"


def test_the_worse_end_decides() -> None:
    measures = [measured("probe_recall", 3)]
    high = measures[0].unlearned.high
    assert high is not None
    assert high > 0.05
    (verdict,) = judge_measure(MeasureThreshold(measure="probe_recall", max=0.05), measures)
    assert (verdict.passed, verdict.value, verdict.where) == (False, high, "own")
    (verdict,) = judge_measure(MeasureThreshold(measure="probe_recall", max=high), measures)
    assert verdict.passed


def test_a_lower_bound_is_judged_by_the_lower_end() -> None:
    measures = [measured("near_accuracy", 92)]
    both = judge_measure(MeasureThreshold(measure="near_accuracy", min=0.9, max=1.0), measures)
    assert [(v.bound, v.passed) for v in both] == [("max", True), ("min", False)]


def test_a_measure_without_an_interval_is_judged_by_its_value() -> None:
    measures = [found("relearn_steps", "own", Value(value=8.0))]
    (verdict,) = judge_measure(MeasureThreshold(measure="relearn_steps", min=8), measures)
    assert verdict.passed


def test_the_worst_place_decides_unless_one_is_named() -> None:
    measures = [measured("forget_recall", 1, where="a"), measured("forget_recall", 30, where="b")]
    (verdict,) = judge_measure(MeasureThreshold(measure="forget_recall", max=0.1), measures)
    assert (verdict.passed, verdict.where) == (False, "b")
    (verdict,) = judge_measure(MeasureThreshold(measure="forget_recall", max=0.1, where="a"), measures)
    assert (verdict.passed, verdict.where) == (True, "a")


@pytest.mark.parametrize("bound", ["min", "max"])
def test_what_was_not_measured_has_failed(bound: str) -> None:
    wanted = MeasureThreshold.model_validate({"measure": "probe_recall", bound: 1.0 if bound == "max" else 0.0})
    (verdict,) = judge(Thresholds(measures=(wanted,)), TargetResult(accuracy=None, synthetic_accuracy=None), ())
    assert (verdict.passed, verdict.where) == (False, "nothing was measured")
