"""What each method needs of a request's data, and that a request which cannot be judged is refused."""

from pathlib import Path
from typing import Any, get_args

import pytest

from shared.errors import InvalidRequest
from shared.request_rules.method_data import data_errors, fits
from shared.request_rules.thresholds import resolve_thresholds
from shared.schemas.methods import METHOD_IMAGES, METHOD_PARAMETERS
from shared.schemas.methods.auto import ChosenMethod
from shared.schemas.request import ErasureRequest, Method
from tests.support import requests

CLIP = Path("/models/clip")


def of_class(method: str, *given: str, **parameters: object) -> ErasureRequest:
    data = dict.fromkeys(given, "ds")
    return requests.names_only(CLIP, method={"name": method, "parameters": parameters}, data=data)


def of_subgroup(method: str, *given: str) -> ErasureRequest:
    data: dict[str, Any] = dict.fromkeys(given, "ds")
    return requests.subgroup(CLIP, forget="f", retain="r", method={"name": method}).model_copy(
        update={"data": requests.names_only(CLIP, data=data).data}
    )


def pointers(request: ErasureRequest) -> list[str]:
    return [error.pointer for error in data_errors(request)]


def test_every_method_has_parameters_and_says_what_it_needs() -> None:
    names = get_args(Method.model_fields["name"].annotation)
    assert set(names) == set(METHOD_PARAMETERS) == set(METHOD_IMAGES)
    assert set(get_args(ChosenMethod)) == set(names) - {"auto", "gradient_ascent"}


@pytest.mark.parametrize("method", METHOD_PARAMETERS)
def test_a_class_request_names_each_missing_field(method: str) -> None:
    assert pointers(of_class(method)) == [f"/data/{field}" for field in METHOD_IMAGES[method]]
    assert pointers(of_class(method, "forget", "retain")) == []


@pytest.mark.parametrize("method", ["delete", "pbu", "gradient_ascent", "auto"])
def test_a_subgroup_needs_its_images_and_others_to_measure_the_rest_on(method: str) -> None:
    assert pointers(of_subgroup(method)) == ["/data/forget", "/data/retain_test"]
    assert pointers(of_subgroup(method, "forget", "retain_test")) == []
    assert pointers(of_subgroup(method, "forget", "retain")) == []


@pytest.mark.parametrize("method", ["synthetic", "null_space"])
def test_names_cannot_tell_a_subgroup(method: str) -> None:
    (error,) = data_errors(of_subgroup(method, "forget", "retain"))
    assert error.pointer == "/method/name"
    assert "three_stage" in error.detail


def test_what_auto_is_told_to_try_must_fit() -> None:
    (error,) = data_errors(of_class("auto", methods=["null_space", "delete"]))
    assert error.pointer == "/method/parameters/methods"
    assert "'delete'" in error.detail
    assert "data/forget" in error.detail


def test_fits() -> None:
    assert fits(of_class("auto", "forget"), "delete")
    assert not fits(of_class("auto", "forget"), "slug")


@pytest.mark.parametrize("method", ["null_space", "delete", "slug", "three_stage"])
def test_a_request_that_nothing_could_judge_is_refused(method: str) -> None:
    with pytest.raises(InvalidRequest, match="/data/evaluation"):
        resolve_thresholds(of_class(method), {})
    with pytest.raises(InvalidRequest, match="/data/evaluation"):
        resolve_thresholds(of_class(method, "forget"), {"other": {"dog", "cat"}})
    judged = resolve_thresholds(of_class(method), {"own": {"horse", "dog"}}).thresholds
    assert (judged.max_forget_accuracy, judged.max_retain_drop) == (0.05, 0.02)


def test_images_of_both_sides_are_something_to_judge_by() -> None:
    judged = resolve_thresholds(of_class("delete", "forget", "retain_test"), {}).thresholds
    assert (judged.max_forget_accuracy, judged.max_retain_drop) == (0.05, 0.02)


@pytest.mark.parametrize("method", ["synthetic", "auto"])
def test_names_alone_are_judged_on_samples(method: str) -> None:
    assert resolve_thresholds(of_class(method), {}).thresholds.max_synthetic_accuracy == 0.05
