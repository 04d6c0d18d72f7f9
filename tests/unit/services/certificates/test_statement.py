"""What a certificate says, and what it never says."""

import base64
import json
import re
from dataclasses import replace

import jsonschema
import pytest

from services.certificates.statement import make_statement
from shared.schemas.certificate import SCHEMA_FILE, published_text
from shared.schemas.report import ModelIdentity, Report
from shared.schemas.resolution import RequestWarning
from tests.support.certificates import (
    EXTERNAL_ID,
    NOON,
    RECEIPT,
    SECRETS,
    certificate,
    estimate,
    facts,
    key_folder,
    report_bytes,
)

FORBIDDEN = re.compile(r"\bdeleted\b|anonym", re.IGNORECASE)
VARIANTS = [
    {},
    {"verdict": "failed"},
    {"purge": RECEIPT},
    {"external_id": None},
    {"method": {"name": "three_stage"}, "data": {"forget": "/data/of/jane", "retain": "/data/of/jane"}},
    {
        "target": {"type": "subgroup", "class": "elephant", "subgroup": "sketch"},
        "method": {"name": "three_stage"},
        "data": {"forget": "/data/of/jane", "retain": "/data/of/jane"},
    },
]


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    return key_folder(tmp_path_factory.mktemp("keys") / "signing")


def payload_of(content: bytes) -> dict:
    return json.loads(base64.b64decode(json.loads(content)["payload"]))


@pytest.mark.parametrize("with_names", [True, False])
@pytest.mark.parametrize("changes", VARIANTS)
def test_every_certificate_keeps_to_the_schema_to_its_words_and_to_itself(keys, changes, with_names):
    statement = payload_of(certificate(keys, with_names=with_names, **changes))

    jsonschema.validate(statement, json.loads(SCHEMA_FILE.read_text()), jsonschema.Draft202012Validator)
    text = json.dumps(statement)
    assert FORBIDDEN.findall(text) == []
    assert [secret for secret in SECRETS if secret in text] == []


def test_the_published_schema_is_the_one_of_the_models():
    assert SCHEMA_FILE.read_text() == published_text(), "run: python -m shared.schemas.certificate"


def test_the_schema_refuses_what_is_no_certificate(keys):
    statement = payload_of(certificate(keys))
    del statement["predicate"]["verdict"]

    with pytest.raises(jsonschema.ValidationError, match="verdict"):
        jsonschema.validate(statement, json.loads(SCHEMA_FILE.read_text()))


def test_it_says_what_was_asked_done_and_measured(keys):
    statement = payload_of(certificate(keys))
    predicate = statement["predicate"]
    made_from = facts()

    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "urn:efface:erasure-certificate:v1"
    assert statement["subject"] == [
        {"name": "open_clip_model.safetensors", "digest": {"sha256": made_from.weights_sha256}}
    ]
    assert predicate["request"]["target"]["names"] == ["horse"]
    assert predicate["request"]["seed"] == 7
    assert predicate["base_model"]["digest"] == {"sha256": "ef" * 32}
    assert predicate["method"] == {"name": "synthetic", "parameters": {"mode": "calibrated"}}
    assert predicate["software"]["code"] == {"sha256": "12" * 32}
    assert predicate["software"]["image"] == "sha256:34"
    assert predicate["times"]["received_at"] == NOON.isoformat().replace("+00:00", "Z")
    (measure,) = predicate["measurements"]["measures"]
    assert measure["unlearned"] == estimate(0.01)
    (evaluation,) = predicate["measurements"]["evaluations"]
    assert evaluation["retain"]["after"] == estimate(0.89)
    assert predicate["thresholds"][0]["passed"] is True
    assert (predicate["verdict"], predicate["weights"], predicate["evidence"]) == ("passed", "published", "association")
    assert predicate["report"]["digest"] == {"sha256": made_from.report_sha256}
    assert predicate["purge"] is None
    assert any("not yet confirmed" in limit for limit in predicate["limits"])
    assert "Other prompts may behave differently." in predicate["limits"]


def test_a_subject_is_found_again_by_who_has_the_key_alone(keys):
    reference = payload_of(certificate(keys))["predicate"]["subject_reference"]

    assert reference == keys.subject_key("tests").reference(EXTERNAL_ID)
    assert reference != keys.subject_key("others").reference(EXTERNAL_ID)
    assert payload_of(certificate(keys, external_id=None))["predicate"]["subject_reference"] is None


def test_names_can_be_withheld_and_are_found_again(keys):
    changes = {
        "target": {"type": "subgroup", "class": "elephant", "subgroup": "sketch"},
        "method": {"name": "three_stage"},
        "data": {"forget": "/x", "retain": "/x"},
    }
    open_, closed = (payload_of(certificate(keys, with_names=w, **changes)) for w in (True, False))

    target = closed["predicate"]["request"]["target"]
    assert (target["names"], target["subgroup"]) == (None, None)
    assert target["references"] == [keys.subject_key("tests").reference(name) for name in ("elephant", "sketch")]
    assert target["references"] == open_["predicate"]["request"]["target"]["references"]
    assert "elephant" not in json.dumps(closed)
    assert "sketch" not in json.dumps(closed)


def test_warnings_are_certified_but_for_names_that_are_withheld(keys):
    warning = RequestWarning(
        pointer="/data/evaluation/0/dataset", detail="holds 'zebra_x', for which there is no label"
    )
    known = facts()
    told = replace(known, report=known.report.model_copy(update={"warnings": (warning,)}))
    key = keys.subject_key("tests")

    open_, closed = (make_statement(told, key, with_names=with_names).predicate for with_names in (True, False))

    assert [w.model_dump() for w in open_.warnings] == [warning.model_dump()]
    assert [w.model_dump() for w in closed.warnings] == [warning.model_dump() | {"detail": None}]
    assert "zebra" not in closed.model_dump_json()


def test_data_sets_are_named_by_keyed_digests_alone(keys):
    forget, farm = payload_of(certificate(keys))["predicate"]["request"]["data"]

    assert forget == {"role": "forget", "name": "forget", "reference": None}
    assert farm == {
        "role": "evaluation",
        "name": "farm",
        "reference": keys.subject_key("tests").reference("ab" * 32),
    }


def test_a_receipt_takes_the_place_of_the_reservation(keys):
    predicate = payload_of(certificate(keys, purge=RECEIPT))["predicate"]

    assert predicate["purge"]["objects"] == 3
    assert not any("not yet confirmed" in limit for limit in predicate["limits"])


def test_a_reference_is_named_by_its_digest(keys):
    reference = {"id": "mdl_2", "architecture": "ViT-B-32", "digest": "ab" * 32}
    known = facts()
    compared = known.report.model_copy(update={"model_reference": ModelIdentity.model_validate(reference)})

    predicate = make_statement(replace(known, report=compared), keys.subject_key("tests"), with_names=True).predicate

    assert predicate.reference_model is not None
    assert predicate.reference_model.digest.sha256 == "ab" * 32
    assert payload_of(certificate(keys))["predicate"]["reference_model"] is None


def test_images_in_two_roles_are_certified_by_their_counts_alone(keys):
    pair = {
        "place": "farm",
        "seen_as": "forget",
        "identical": 3,
        "similar": 2,
        "compared": 90,
        "example": "Jane Doe/1.png",
    }
    known = facts()
    body = known.report.model_dump(mode="json", by_alias=True) | {"separation": [pair]}
    report = Report.model_validate(body)

    statement = make_statement(replace(known, report=report), keys.subject_key("tests"), with_names=False)

    (told,) = statement.predicate.measurements.separation
    assert told.model_dump() == {name: value for name, value in pair.items() if name != "example"}
    assert "Jane" not in statement.model_dump_json()


def test_a_failed_verdict_is_certified_as_such(keys):
    predicate = payload_of(certificate(keys, verdict="failed"))["predicate"]

    assert (predicate["verdict"], predicate["weights"]) == ("failed", "quarantined")
    assert (
        predicate["report"]["digest"]["sha256"]
        != payload_of(certificate(keys))["predicate"]["report"]["digest"]["sha256"]
    )
    assert report_bytes(verdict="failed") != report_bytes()
