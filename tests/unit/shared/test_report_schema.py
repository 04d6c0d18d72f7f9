"""The published JSON Schema of the report."""

import json

import pytest
from jsonschema import Draft202012Validator, ValidationError

from shared.schemas.publish import REPORT_SCHEMA_FILE, published_text
from shared.schemas.report import REPORT_SCHEMA_PATH, REPORT_VERSION
from tests.support.reports import VALIDATOR, report


def body() -> dict:
    return json.loads(report().model_dump_json())


def test_the_published_file_is_that_of_the_models() -> None:
    why = "The models have changed: run `python -m shared.schemas.publish` and read the difference."
    assert REPORT_SCHEMA_FILE.read_text() == published_text(), why


def test_it_is_a_schema_of_its_dialect_and_knows_its_name() -> None:
    schema = json.loads(REPORT_SCHEMA_FILE.read_text())
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == f"urn:efface:report:{REPORT_VERSION}"


def test_a_report_says_where_its_schema_is() -> None:
    assert body()["$schema"] == REPORT_SCHEMA_PATH
    assert body()["version"] == REPORT_VERSION
    VALIDATOR.validate(body())


@pytest.mark.parametrize(
    "change",
    [
        {"verdict": "undecided"},
        {"version": "2.0"},
        {"evidence": "everything"},
        {"extra": 1},
        {"limits": "none"},
        {"model_after": None},
        {"curves": [{"name": "x"}]},
    ],
)
def test_what_is_no_report_is_refused(change: dict) -> None:
    with pytest.raises(ValidationError):
        VALIDATOR.validate(body() | change)


def test_no_part_may_be_missing() -> None:
    for name in body():
        with pytest.raises(ValidationError):
            VALIDATOR.validate({key: value for key, value in body().items() if key != name})
