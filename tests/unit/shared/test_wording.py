"""What pydantic says, in words and with pointers that exist in the body."""

import copy

import pytest
from pydantic import ValidationError

from shared.schemas.request import ErasureRequest
from shared.schemas.validation_errors import invalid_request

REQUEST = {
    "model": {"id": "mdl_x"},
    "target": {"type": "class", "class": "horse", "labels": ["horse", "cow"]},
    "method": {"name": "synthetic", "parameters": {}},
}
REMOVED = object()


def errors_after(path, value):
    """Return the errors of the request with one field changed, as {pointer: detail}."""
    body = copy.deepcopy(REQUEST)
    *parents, last = path.split(".")
    holder = body
    for part in parents:
        holder = holder[part]
    if value is REMOVED:
        del holder[last]
    else:
        holder[last] = value
    with pytest.raises(ValidationError) as raised:
        ErasureRequest.model_validate(body)
    return {error.pointer: error.detail for error in invalid_request(raised.value, body).errors}


@pytest.mark.parametrize(
    ("path", "value", "pointer", "words"),
    [
        ("model", REMOVED, "/model", "is missing"),
        ("target", 3, "/target", "must be an object"),
        ("target.type", REMOVED, "/target", "must have a field 'type'"),
        ("target.type", "klass", "/target", "'class', 'subgroup'"),
        ("target.labels", REMOVED, "/target/labels", "is missing"),
        ("target.labels", ["horse"], "/target/labels", "at least 2 items"),
        ("target.class", 5, "/target/class", "must be a valid string or must be a valid list, but is 5"),
        ("target.class", ["horse", 5], "/target/class/1", "must be a valid string, but is 5"),
        ("target.synonyms", {"horse": 5}, "/target/synonyms/horse", "must be a valid list"),
        ("target.templates", ["x"], "/target/templates/0", "at least 2 characters"),
        ("targt", {}, "/targt", "correct its spelling"),
        ("method.name", "magic", "/method/name", "or 'auto', but is \"magic\""),
        ("method.parameters", {"mode": "x"}, "/method/parameters/mode", "must be 'calibrated'"),
        ("method.parameters", {"a/b": 1}, "/method/parameters/a~1b", "not a field that is known"),
        ("thresholds", {"max_retain_drop": 7}, "/thresholds/max_retain_drop", "less than or equal to 1, but is 7"),
        ("data", {"evaluation": [{"name": "a"}]}, "/data/evaluation/0/dataset", "is missing"),
        ("seed", -1, "/seed", "greater than or equal to 0, but is -1"),
    ],
)
def test_one_wrong_field_is_named_and_explained(path, value, pointer, words):
    errors = errors_after(path, value)

    assert list(errors) == [pointer]
    assert words in errors[pointer]


def test_a_class_named_like_a_union_member_is_no_part_of_the_pointer():
    assert list(errors_after("target", {"type": "class", "class": "class", "labels": 5})) == ["/target/labels"]


def test_every_wrong_field_is_reported():
    body = {"model": {}, "target": {"type": "subgroup"}, "method": {"name": "synthetic"}, "seed": "x"}
    with pytest.raises(ValidationError) as raised:
        ErasureRequest.model_validate(body)

    pointers = {error.pointer for error in invalid_request(raised.value, body).errors}

    assert pointers == {"/model", "/target/class", "/target/subgroup", "/seed"}
