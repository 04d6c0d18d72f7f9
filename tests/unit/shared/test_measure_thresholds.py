"""Thresholds on measures: what a request may ask for, and what is said of the rest."""

from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import ValidationError

from shared.errors import InvalidRequest
from shared.request_rules.measurable import offer_of, other_names
from shared.request_rules.method_data import reference_errors
from shared.request_rules.thesaurus import look_up
from shared.request_rules.thresholds import resolve_thresholds
from shared.schemas.audit import MeasureThreshold
from shared.schemas.measure_catalogue import CATALOGUE, LACKS, Need
from shared.schemas.request import ErasureRequest
from shared.schemas.spec import ModelSource

SETS = {"own": {"cat", "dog", "car"}, "other": {"cup"}}
IMAGES = {"forget": "ds_f", "retain": "ds_r"}


def request(*measures: Mapping[str, Any], **changes: Any) -> ErasureRequest:
    body = {
        "model": {"id": "m"},
        "target": {"type": "class", "class": "cat", "labels": ["cat", "dog", "car"]},
        "method": {"name": "synthetic"},
        "thresholds": {"measures": measures},
    }
    return ErasureRequest.model_validate(body | changes)


def refused(asked: ErasureRequest, classes: Mapping[str, set[str]]) -> dict[str, str]:
    with pytest.raises(InvalidRequest) as caught:
        resolve_thresholds(asked, classes)
    return {error.pointer: error.detail for error in caught.value.errors}


def test_what_can_be_measured_is_kept_beside_the_defaults() -> None:
    asked = request(
        {"measure": "worst_prompt_recall", "max": 0.05, "where": "own"}, {"measure": "probe_recall", "max": 0.5}
    )
    resolved = resolve_thresholds(asked, SETS).thresholds
    assert resolved.measures == asked.thresholds.measures
    assert resolved.max_forget_accuracy == 0.05


def test_what_was_forgotten_before_is_to_stay_forgotten() -> None:
    asked = request(data={"earlier": [{"name": "before", "dataset": "ds_e"}]})
    assert resolve_thresholds(asked, SETS).thresholds.max_earlier_accuracy == 0.05
    assert resolve_thresholds(request(), SETS).thresholds.max_earlier_accuracy is None
    hopeless = refused(request(thresholds={"max_earlier_accuracy": 0.1}), SETS)
    assert "data.earlier" in hopeless["/thresholds/max_earlier_accuracy"]


def test_an_unknown_measure_is_told_with_the_nearest_name() -> None:
    with pytest.raises(ValidationError, match="did you mean 'worst_prompt_recall'"):
        MeasureThreshold(measure="worst_promt_recall", max=0.05)


@pytest.mark.parametrize("bounds", [{}, {"min": 0.5, "max": 0.1}, {"max": float("nan")}])
def test_bounds_that_say_nothing(bounds: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        MeasureThreshold(measure="probe_recall", **bounds)


@pytest.mark.parametrize(
    ("measure", "words"),
    [
        ("probe_recall", "real images"),
        ("worst_transfer_drop", "evaluation set besides"),
        ("membership_auc", "data.forget"),
        ("retrieval_recall_5", "captions"),
        ("tow", "real images"),
    ],
)
def test_names_alone_cannot_answer_everything(measure: str, words: str) -> None:
    found = refused(request({"measure": "worst_prompt_recall", "max": 0.6}, {"measure": measure, "max": 0.1}), {})
    assert list(found) == ["/thresholds/measures/1/measure"]
    assert words in found["/thresholds/measures/1/measure"]


BESIDE_A_REFERENCE = [name for name, entry in CATALOGUE.items() if Need.REFERENCE in entry.needs]


@pytest.mark.parametrize("measure", BESIDE_A_REFERENCE)
def test_measures_beside_a_reference_need_one(measure: str) -> None:
    body = {"data": {"forget": "ds_f"}, "audit": {"level": "thorough"}}
    found = refused(request({"measure": measure, "max": 0.9}, **body), SETS)
    assert "audit.reference" in found["/thresholds/measures/0/measure"]
    body["audit"] |= {"reference": {"id": "gold"}}
    assert resolve_thresholds(request({"measure": measure, "max": 0.9}, **body), SETS).thresholds.measures


@pytest.mark.parametrize(
    ("model", "reference", "refused"),
    [
        (ModelSource(reference="storage:a"), None, False),
        (ModelSource(reference="storage:a"), ModelSource(reference="storage:b"), False),
        (ModelSource(reference="local-dir:/a"), ModelSource(reference="local-dir:/a"), True),
        (ModelSource(reference="storage:a", digest="d"), ModelSource(reference="storage:b", digest="d"), True),
    ],
)
def test_a_model_is_no_reference_for_itself(model: ModelSource, reference: ModelSource | None, refused: bool) -> None:
    assert [error.pointer for error in reference_errors(model, reference)] == ["/audit/reference"] * refused


def test_a_thorough_measure_needs_the_thorough_level() -> None:
    wanted = {"measure": "relearn_recall_16", "max": 0.5}
    assert "audit.level" in refused(request(wanted), SETS)["/thresholds/measures/0/measure"]
    assert resolve_thresholds(request(wanted, audit={"level": "thorough"}), SETS).thresholds.measures


@pytest.mark.parametrize(
    ("measure", "where", "said"),
    [
        ("forget_recall", "other", "own, synthetic samples"),
        ("probe_recall", "synthetic samples", "own"),
        ("worst_transfer_drop", "other", "leave where out"),
    ],
)
def test_a_place_where_it_is_not_taken(measure: str, where: str, said: str) -> None:
    found = refused(request({"measure": measure, "max": 0.1, "where": where}), SETS)
    assert said in found["/thresholds/measures/0/where"]


def test_words_decide_what_can_be_asked() -> None:
    made_up = request(
        {"measure": "translation_recall", "max": 0.1},
        {"measure": "sibling_accuracy", "min": 0.9},
        target={"type": "class", "class": "blicket", "labels": ["blicket", "dax"]},
    )
    classes = {"own": {"blicket", "dax"}}
    assert set(refused(made_up, classes)) == {"/thresholds/measures/0/measure", "/thresholds/measures/1/measure"}
    kinds = made_up.model_copy(
        update={"audit": made_up.audit.model_copy(update={"kinds": {"blicket": "toy", "dax": "toy"}})}
    )
    assert set(refused(kinds, classes)) == {"/thresholds/measures/0/measure"}


def test_images_of_a_class_are_measured_where_no_set_shows_it() -> None:
    asked = request({"measure": "membership_auc", "max": 0.7}, data=IMAGES, method={"name": "three_stage"})
    resolved = resolve_thresholds(asked, {}).thresholds
    assert resolved.max_forget_accuracy == 0.05
    assert offer_of(asked, {}).real_places == ("target",)


def test_other_names_are_never_labels_and_can_be_given() -> None:
    asked = request(
        target={"type": "class", "class": "boat", "labels": ["boat", "ship", "car"]}, audit={"names": ["Dinghy"]}
    )
    assert other_names(asked, "boat") == ["dinghy", "sailboat"]


def test_names_for_the_audit_say_which_class_they_are_of() -> None:
    several = {"type": "class", "class": ["cat", "dog"], "labels": ["cat", "dog", "car"]}
    with pytest.raises(ValidationError, match="a list under each class name"):
        request(target=several, audit={"names": ["moggy"]})
    with pytest.raises(ValidationError, match="'car', which is not to be forgotten"):
        request(target=several, audit={"names": {"car": ["motor"]}})


def test_words_are_found_by_their_synonyms_and_in_any_case() -> None:
    assert look_up("Automobile").kind == "vehicle"
    assert "car" in look_up("Automobile").synonyms
    assert look_up("grey_wolf").translations["de"] == "Wolf"
    assert look_up("blicket") == look_up("dax")


@pytest.mark.parametrize("name", ["target", "synthetic samples", "data.forget"])
def test_a_set_cannot_be_called_like_a_place_of_the_report(name: str) -> None:
    with pytest.raises(ValidationError, match="choose another"):
        request(data={"evaluation": [{"name": name, "dataset": "ds_x"}]})


def test_every_need_says_what_to_do() -> None:
    assert set(LACKS) == set(Need)
    assert {need for entry in CATALOGUE.values() for need in entry.needs} <= set(Need)
