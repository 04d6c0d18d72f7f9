"""Thresholds that the images of a request cannot answer, or that no result could meet: refused, or left out and said."""

import re
from collections.abc import Mapping
from typing import Any

import pytest

from shared.errors import InvalidRequest
from shared.intervals import highest_lower_end, lowest_upper_end
from shared.request_rules import reach
from shared.request_rules.image_counts import Classes
from shared.request_rules.thresholds import ResolvedThresholds, resolve_thresholds
from shared.schemas.measure_catalogue import CATALOGUE, Need
from shared.schemas.request import ErasureRequest

OWN = {"cat": 20, "dog": 30, "car": 50}
IMAGES = {"forget": "ds_f", "retain": "ds_r"}
UPPER_END = "/thresholds/max_forget_upper_end"


def request(*measures: Mapping[str, Any], **changes: Any) -> ErasureRequest:
    body = {
        "model": {"id": "m"},
        "target": {"type": "class", "class": "cat", "labels": ["cat", "dog", "car"]},
        "method": {"name": "synthetic"},
        "thresholds": {"measures": measures},
        "audit": {"level": "thorough", "kinds": {"cat": "animal", "dog": "animal", "car": "vehicle"}},
    }
    return ErasureRequest.model_validate(body | changes)


def refused(
    asked: ErasureRequest, sets: Mapping[str, Classes], given: Mapping[str, Classes] | None = None
) -> dict[str, str]:
    with pytest.raises(InvalidRequest) as caught:
        resolve_thresholds(asked, sets, given)
    return {error.pointer: error.detail for error in caught.value.errors}


def notes(resolved: ResolvedThresholds) -> dict[str, str]:
    return {note.pointer: note.detail for note in resolved.notes}


def subgroup(**changes: Any) -> ErasureRequest:
    target = {"type": "subgroup", "class": "cat", "subgroup": "sketch", "labels": ["cat", "dog"]}
    return request(**{"target": target, "method": {"name": "three_stage"}, "data": IMAGES} | changes)


# What nothing can answer


def test_a_set_that_shows_the_target_alone_says_nothing_of_the_rest() -> None:
    resolved = resolve_thresholds(request(), {"own": {"cat": 40}}).thresholds
    assert (resolved.max_forget_accuracy, resolved.max_retain_drop) == (0.05, None)
    found = refused(request(thresholds={"max_retain_drop": 0.02}), {"own": {"cat": 40}})
    assert "rest of the target's set" in found["/thresholds/max_retain_drop"]
    found = refused(request({"measure": "retain_accuracy", "min": 0.5}), {"own": {"cat": 40}})
    assert set(found) == {"/thresholds/measures/0/measure"}


def test_another_set_that_shows_the_target_alone_says_nothing_of_transfer() -> None:
    sets = {"own": OWN, "more": {"cat": 40}}
    assert resolve_thresholds(request(), sets).thresholds.max_transfer_drop is None
    assert set(refused(request(thresholds={"max_transfer_drop": 0.1}), sets)) == {"/thresholds/max_transfer_drop"}
    assert resolve_thresholds(request(), {"own": OWN, "more": {"cat": 40, "cup": 1}}).thresholds.max_transfer_drop


def test_the_first_set_that_shows_the_target_is_its_own() -> None:
    only_later = {"first": {"cat": 40}, "second": OWN}
    resolved = resolve_thresholds(request(), only_later).thresholds
    assert (resolved.max_retain_drop, resolved.max_transfer_drop) == (None, 0.02)


def test_how_a_score_sorts_images_needs_images_to_sort_them_from() -> None:
    wanted = {"measure": "class_auc", "max": 0.9}
    assert "rest" in refused(request(wanted), {})["/thresholds/measures/0/measure"]
    assert "rest" in refused(request(wanted), {"own": {"cat": 40}})["/thresholds/measures/0/measure"]
    sets = {"own": {"cat": 40}, "more": OWN}
    assert resolve_thresholds(request(wanted | {"where": "more"}), sets).thresholds.measures
    assert "more" in refused(request(wanted | {"where": "own"}), sets)["/thresholds/measures/0/where"]


@pytest.mark.parametrize("role", ["forget", "retain"])
def test_a_single_image_cannot_be_parted(role: str) -> None:
    given = {"/data/forget": {"cat": 40}, "/data/retain": {"dog": 40, "car": 1}, f"/data/{role}": {"dog": 1}}
    asked = request(data=IMAGES, method={"name": "three_stage"})
    assert set(refused(asked, {}, given)) == {f"/data/{role}"}
    assert resolve_thresholds(asked, {"own": OWN}, given)  # measured on the set, so nothing is parted


def test_a_single_image_of_an_earlier_erasure_cannot_be_parted() -> None:
    asked = request(data={"earlier": [{"name": "before", "dataset": "ds_e"}]})
    pointer = "/data/earlier/0/dataset"
    assert set(refused(asked, {"own": OWN}, {pointer: {"cup": 1}})) == {pointer}
    assert resolve_thresholds(asked, {"own": OWN}, {pointer: {"cup": 2}}).thresholds.max_earlier_accuracy == 0.05


@pytest.mark.parametrize(
    ("measure", "sets", "given", "words"),
    [
        ("relearn_recall_16", {"own": OWN}, {}, "needs 16 .* 'own' has 10"),
        ("relearn_steps", {"own": OWN}, {}, "needs 16"),
        ("relearn_recall_64", {"own": OWN}, {"/data/forget": {"cat": 60}}, "needs 64 .* has 45"),
        ("membership_tpr_1", {"own": OWN}, {"/data/forget": {"cat": 60}}, "needs 100 .* has 20"),
        ("probe_recall", {"own": {"cat": 1, "dog": 9}}, {}, "needs 2"),
        ("sibling_accuracy", {"own": {"cat": 40, "car": 9}}, {}, "'own' has 0"),
    ],
)
def test_measures_that_need_more_images_than_there_are(
    measure: str, sets: dict[str, Classes], given: dict[str, Classes], words: str
) -> None:
    data = {"forget": "ds_f"} if given else {}
    found = refused(request({"measure": measure, "max": 1.0}, data=data), sets, given)
    assert list(found) == ["/thresholds/measures/0/measure"]
    assert re.search(words, found["/thresholds/measures/0/measure"])


# What no result could meet


def test_four_samples_cannot_meet_a_bound_of_a_fifth() -> None:
    found = refused(request({"measure": "worst_prompt_recall", "max": 0.2}), {})["/thresholds/measures/0/max"]
    assert "4 samples of 'synthetic samples' the upper end cannot fall under 0.49" in found
    assert "16 are needed (samples_per_class 64)" in found
    more = {"name": "synthetic", "parameters": {"samples_per_class": 64}}
    assert resolve_thresholds(request({"measure": "worst_prompt_recall", "max": 0.2}, method=more), {})
    asked = request({"measure": "worst_prompt_recall", "max": 0.2}, method={"name": "auto"})
    assert "4 samples" in refused(asked, {})["/thresholds/measures/0/max"]  # auto must take the method that makes them


def test_the_place_to_judge_can_be_named_instead() -> None:
    wanted = {"measure": "worst_prompt_recall", "max": 0.2}
    assert "where: own" in refused(request(wanted), {"own": OWN})["/thresholds/measures/0/max"]
    assert resolve_thresholds(request(wanted | {"where": "own"}), {"own": OWN}).thresholds.measures
    assert resolve_thresholds(request(wanted, method={"name": "null_space"}), {"own": OWN}).thresholds.measures


def test_twenty_images_cannot_meet_a_bound_of_a_twentieth() -> None:
    wanted = {"measure": "forget_recall", "max": 0.05, "where": "own"}
    found = refused(request(wanted), {"own": OWN})["/thresholds/measures/0/max"]
    assert "20 images of 'own' the upper end cannot fall under 0.16; 73 are needed" in found
    assert refused(request(wanted), {"own": OWN | {"cat": 72}})
    assert resolve_thresholds(request(wanted), {"own": OWN | {"cat": 73}})


def test_the_smallest_place_decides_where_none_is_named() -> None:
    asked = request({"measure": "forget_recall", "max": 0.2}, method={"name": "null_space"})
    found = refused(asked, {"own": OWN, "small": {"cat": 5, "dog": 5}})["/thresholds/measures/0/max"]
    assert "5 images of 'small'" in found
    assert "where: own" in found


@pytest.mark.parametrize(("least", "met"), [(0.95, True), (0.96, False), (1.0, False)])
def test_a_least_value_is_checked_too(least: float, met: bool) -> None:
    asked = request({"measure": "retain_accuracy", "min": least})
    if met:
        assert resolve_thresholds(asked, {"own": OWN})  # 80 images of the rest: at best 0.954
    else:
        assert "80 images" in refused(asked, {"own": OWN})["/thresholds/measures/0/min"]


@pytest.mark.parametrize("bound", [{"max": 0}, {"min": 1}, {"max": -0.5}, {"min": 1.5}])
def test_certainty_is_out_of_reach(bound: dict[str, float]) -> None:
    (found,) = refused(request({"measure": "far_accuracy", **bound}), {"own": OWN}).values()
    assert "no number of them is enough" in found


def test_bounds_that_every_result_meets_are_no_error() -> None:
    assert resolve_thresholds(request({"measure": "far_accuracy", "min": 0, "max": 1}), {"own": {"cat": 1, "dog": 2}})


def test_more_images_do_not_help_where_few_are_looked_at() -> None:
    sets = {"own": OWN | {"cat": 5000}}
    found = refused(request({"measure": "relearn_recall_5", "max": 0.05}), sets)["/thresholds/measures/0/max"]
    assert "73 are needed, and relearn_recall_5 is taken over 64 at most" in found
    found = refused(request({"measure": "probe_recall", "max": 0.001}), sets)["/thresholds/measures/0/max"]
    assert "taken over 1000 at most" in found


def test_each_class_is_asked_for_by_its_own_names() -> None:
    target = {"type": "class", "class": ["cat", "dog"], "labels": ["cat", "dog", "car"]}
    method = {"name": "null_space"}
    sets = {"own": {"cat": 10, "dog": 12, "car": 30}}
    together = request({"measure": "forget_recall", "max": 0.2}, target=target, method=method)
    assert resolve_thresholds(together, sets)  # over 22 images
    alone = request({"measure": "worst_prompt_recall", "max": 0.2}, target=target, method=method)
    assert "12 images" in refused(alone, sets)["/thresholds/measures/0/max"]


def test_a_drop_is_bounded_by_what_can_be_won() -> None:
    sets = {"own": {"cat": 40, "dog": 1}}
    assert (
        "1 image of 'own'"
        in refused(request({"measure": "retain_drop", "max": 0.1}), sets)["/thresholds/measures/0/max"]
    )
    sets = {"own": OWN, "other": {"cup": 1}}
    found = refused(request({"measure": "worst_transfer_drop", "max": 0.1}), sets)["/thresholds/measures/0/max"]
    assert "1 image of 'all other sets'" in found
    assert resolve_thresholds(
        request({"measure": "worst_transfer_drop", "max": 0.1}), {"own": OWN, "other": {"cup": 9}}
    )


def test_held_out_images_are_a_fifth_of_those_that_are_given() -> None:
    given = {"/data/forget": {"a": 75}, "/data/retain": {"cat": 30, "dog": 50}}
    asked = subgroup(thresholds={"measures": [{"measure": "forget_recall", "max": 0.2}]})
    assert "15 images of 'target'" in refused(asked, {}, given)["/thresholds/measures/0/max"]
    assert resolve_thresholds(asked, {}, given | {"/data/forget": {"a": 80}})
    tested = subgroup(
        data=IMAGES | {"forget_test": "ds_t"}, thresholds={"measures": [{"measure": "forget_recall", "max": 0.2}]}
    )
    assert resolve_thresholds(tested, {}, given | {"/data/forget_test": {"a": 16}})
    assert "15 images" in refused(tested, {}, given | {"/data/forget_test": {"a": 15}})["/thresholds/measures/0/max"]


def test_nothing_is_said_of_numbers_that_nobody_knows() -> None:
    asked = request({"measure": "forget_recall", "max": 0.001, "where": "own"}, {"measure": "relearn_steps", "max": 9})
    assert resolve_thresholds(asked, {"own": {"cat", "dog"}}).thresholds.measures
    assert resolve_thresholds(asked, {"own": {"cat": None, "dog": None}}).thresholds.measures
    given = subgroup(thresholds={"measures": [{"measure": "forget_recall", "max": 0.001}]})
    assert resolve_thresholds(given, {}).thresholds.measures


# The default for the upper end


def test_the_upper_end_has_a_default_where_it_can_be_met() -> None:
    resolved = resolve_thresholds(request(), {"own": OWN | {"cat": 16}})
    assert (resolved.thresholds.max_forget_upper_end, resolved.notes) == (0.2, ())
    small = resolve_thresholds(request(), {"own": OWN | {"cat": 8}})
    assert (small.thresholds.max_forget_upper_end, small.thresholds.max_forget_accuracy) == (None, 0.05)
    assert notes(small) == {
        UPPER_END: "is left out: 0.2 needs 16 images of what is forgotten, and 'own' has 8; "
        "with 8, the upper end cannot fall under 0.32"
    }


def test_the_smallest_set_decides_about_the_default() -> None:
    small = resolve_thresholds(request(), {"own": OWN, "small": {"cat": 15}})
    assert small.thresholds.max_forget_upper_end is None
    assert "'small' has 15" in notes(small)[UPPER_END]


def test_a_number_that_nobody_knows_gives_no_default() -> None:
    unknown = resolve_thresholds(request(), {"own": {"cat", "dog"}})
    assert unknown.thresholds.max_forget_upper_end is None
    assert "not known how many" in notes(unknown)[UPPER_END]


def test_samples_alone_have_no_upper_end_to_bound() -> None:
    resolved = resolve_thresholds(request(), {})
    assert (resolved.thresholds.max_forget_upper_end, resolved.notes) == (None, ())
    assert "real images" in refused(request(thresholds={"max_forget_upper_end": 0.5}), {})[UPPER_END]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"max_forget_upper_end": 0.3}, 0.3),
        ({"max_forget_upper_end": None}, None),
        ({"max_forget_accuracy": 0.05}, 0.2),
        ({"max_forget_accuracy": 0.3}, None),
        ({"max_forget_accuracy": None}, None),
        ({"max_forget_accuracy": 0.3, "max_forget_upper_end": 0.5}, 0.5),
    ],
)
def test_a_request_says_otherwise(asked: dict[str, float | None], expected: float | None) -> None:
    resolved = resolve_thresholds(request(thresholds=asked), {"own": OWN})
    assert (resolved.thresholds.max_forget_upper_end, resolved.notes) == (expected, ())


@pytest.mark.parametrize(("bound", "words"), [(0.05, "needs 73 .* has 20"), (0.0, "no number of images")])
def test_an_upper_end_that_cannot_be_met_is_refused(bound: float, words: str) -> None:
    found = refused(request(thresholds={"max_forget_upper_end": bound}), {"own": OWN})
    assert re.search(words, found[UPPER_END])


# The tables


UNCHECKED = {"class_auc", "membership_auc", "rmia_auc", "tow", "relative_test_p"}
"""Shares whose best end has no closed form, or that have none."""


def test_every_share_and_drop_is_checked_or_known_not_to_be() -> None:
    judged = {name for name, e in CATALOGUE.items() if Need.CAPTIONS not in e.needs and e.unit in ("share", "points")}
    assert judged - UNCHECKED - {"parameters_changed"} == set(reach.COUNTED)
    assert {name for name in reach.COUNTED if CATALOGUE[name].unit == "points"} == reach.DROPS
    assert set(reach.NEEDED) <= set(CATALOGUE)


@pytest.mark.parametrize("measure", sorted(set(reach.COUNTED) - reach.DROPS))
def test_no_share_is_refused_that_its_images_can_meet(measure: str) -> None:
    sets = {"own": dict.fromkeys(OWN, 200) | ({"cat": 1000} if "tpr" in measure else {})}
    given = {"/data/forget": {"cat": 200}}
    n = 64 if "relearn" in measure or "benign" in measure else 200 - 50 if "tpr" in measure else 200
    n = 400 if measure in ("retain_accuracy", "near_accuracy", "far_accuracy") else n
    bounds = {"max": lowest_upper_end(n), "min": highest_lower_end(n)}
    for bound, best in bounds.items():
        beyond = best - 1e-9 if bound == "max" else best + 1e-9
        for value, accepted in ((best, True), (beyond, False)):
            wanted = {"measure": measure, bound: value}
            asked = request(wanted, data={"forget": "ds_f"}, method={"name": "null_space"})
            if accepted:
                assert resolve_thresholds(asked, sets, given)
            else:
                assert set(refused(asked, sets, given)) == {f"/thresholds/measures/0/{bound}"}
