"""Every way in which a certificate can be wrong is told apart from every other one."""

import base64
import json
from dataclasses import replace

import pytest

from services.certificates.statement import signed
from services.certificates.verification import Exhibits, Outcome, Subject, verify
from shared.crypto.certificate_keys import KeyFolder, SubjectKey
from shared.crypto.dsse import seal
from tests.support.certificates import (
    EXTERNAL_ID,
    PAGE,
    RECEIPT,
    WEIGHTS,
    certificate,
    facts,
    key_folder,
    report_bytes,
    sha256,
)

IN_TOTO = "application/vnd.in-toto+json"


@pytest.fixture(scope="module")
def keys(tmp_path_factory) -> KeyFolder:
    return key_folder(tmp_path_factory.mktemp("keys") / "signing")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory) -> KeyFolder:
    return key_folder(tmp_path_factory.mktemp("keys") / "stranger")


@pytest.fixture
def exhibits(tmp_path, keys) -> Exhibits:
    """What the certificate is really about."""
    (tmp_path / "weights").write_bytes(WEIGHTS)
    (tmp_path / "report").write_bytes(report_bytes())
    (tmp_path / "page").write_bytes(PAGE)
    subject = Subject(EXTERNAL_ID, keys.subject_key("tests"))
    places = {name: tmp_path / name for name in ("weights", "report", "page")}
    return Exhibits(**places, subject=subject)


def changed(content: bytes, **fields: object) -> bytes:
    return json.dumps(json.loads(content) | fields).encode()


def statement_of(content: bytes) -> dict:
    return json.loads(base64.b64decode(json.loads(content)["payload"]))


def resigned(content: bytes, keys: KeyFolder, **fields: object) -> bytes:
    """Sign another statement with the right key."""
    return seal(IN_TOTO, json.dumps(statement_of(content) | fields).encode(), keys.signer())


def test_a_good_one_is_valid_with_and_without_what_it_is_about(keys, exhibits):
    for shown in (Exhibits(), exhibits):
        finding = verify(certificate(keys), keys.public_keys(), shown)
        assert (finding.outcome, finding.holds, finding.key_id) == (Outcome.VALID, True, keys.signer().key_id)
        assert "\n" not in finding.reason


def test_it_says_whether_the_data_is_gone(keys):
    assert "removal of its data not confirmed" in verify(certificate(keys), keys.public_keys()).reason
    assert "2 data sets removed, 1 kept" in verify(certificate(keys, purge=RECEIPT), keys.public_keys()).reason


def test_one_byte_of_the_payload(keys):
    content = certificate(keys)
    payload = base64.b64decode(json.loads(content)["payload"])
    for at in range(0, len(payload), 97):
        other = payload[:at] + bytes([payload[at] ^ 1]) + payload[at + 1 :]
        finding = verify(changed(content, payload=base64.b64encode(other).decode()), keys.public_keys())
        assert finding.outcome is Outcome.PAYLOAD_CHANGED


def test_a_payload_whose_digest_was_mended_has_no_signature(keys):
    forged = json.loads(resigned(certificate(keys), keys, subject=[{"name": "x", "digest": {"sha256": "0" * 64}}]))
    forged["signatures"] = json.loads(certificate(keys))["signatures"]

    assert verify(json.dumps(forged).encode(), keys.public_keys()).outcome is Outcome.WRONG_SIGNATURE


def test_a_byte_of_the_signature(keys):
    content = certificate(keys)
    (signature,) = json.loads(content)["signatures"]
    raw = bytearray(base64.b64decode(signature["sig"]))
    raw[10] ^= 1
    wrong = changed(content, signatures=[signature | {"sig": base64.b64encode(raw).decode()}])

    assert verify(wrong, keys.public_keys()).outcome is Outcome.WRONG_SIGNATURE


@pytest.mark.parametrize("length", [0, 63, 65])
def test_a_signature_of_another_length(keys, length):
    content = certificate(keys)
    signature = {"keyid": keys.signer().key_id, "sig": base64.b64encode(bytes(length)).decode()}

    finding = verify(changed(content, signatures=[signature]), keys.public_keys())
    assert finding.outcome is Outcome.WRONG_SIGNATURE


def test_a_stranger_who_claims_our_key(keys, stranger):
    content = json.loads(certificate(stranger))
    content["signatures"][0]["keyid"] = keys.signer().key_id

    assert verify(json.dumps(content).encode(), keys.public_keys()).outcome is Outcome.WRONG_SIGNATURE


def test_an_unknown_key(keys, stranger):
    finding = verify(certificate(stranger), keys.public_keys())

    assert finding.outcome is Outcome.UNKNOWN_KEY
    assert stranger.signer().key_id in finding.reason
    assert verify(certificate(keys), {}).outcome is Outcome.UNKNOWN_KEY


def test_a_key_that_was_rotated_still_verifies(tmp_path):
    keys = key_folder(tmp_path / "signing")
    old = certificate(keys)
    keys.rotate()

    for content in (old, certificate(keys)):
        assert verify(content, keys.public_keys()).outcome is Outcome.VALID


def test_a_payload_of_another_type(keys):
    content = changed(certificate(keys), payloadType="application/json")

    assert verify(content, keys.public_keys()).outcome is Outcome.WRONG_PAYLOAD_TYPE


@pytest.mark.parametrize(
    "fields",
    [
        {"predicateType": "https://slsa.dev/provenance/v1"},
        {"predicateType": "urn:efface:erasure-certificate:v2"},
        {"_type": "https://in-toto.io/Statement/v0.1"},
        {"predicateType": 7},
    ],
)
def test_a_statement_of_another_kind_or_version(keys, fields):
    finding = verify(resigned(certificate(keys), keys, **fields), keys.public_keys())

    assert finding.outcome is Outcome.WRONG_PREDICATE


def test_weights_that_it_is_not_about(keys, exhibits):
    assert exhibits.weights is not None
    exhibits.weights.write_bytes(WEIGHTS + b"!")

    assert verify(certificate(keys), keys.public_keys(), exhibits).outcome is Outcome.WRONG_WEIGHTS


def test_a_report_that_it_is_not_about(keys, exhibits):
    assert exhibits.report is not None
    exhibits.report.write_bytes(report_bytes() + b"\n")

    assert verify(certificate(keys), keys.public_keys(), exhibits).outcome is Outcome.WRONG_REPORT


def test_a_page_that_it_is_not_about(keys, exhibits):
    assert exhibits.page is not None
    exhibits.page.write_bytes(PAGE + b"\n")

    finding = verify(certificate(keys), keys.public_keys(), exhibits)
    assert finding.outcome is Outcome.WRONG_PAGE
    assert sha256(PAGE + b"\n") in finding.reason


def test_a_certificate_from_before_pages_were_certified_names_none(keys, exhibits):
    old = signed(replace(facts(), page_sha256=None), keys.signer(), keys.subject_key("tests"), with_names=True)

    assert verify(old, keys.public_keys()).outcome is Outcome.VALID
    finding = verify(old, keys.public_keys(), exhibits)
    assert (finding.outcome, "names no page" in finding.reason) == (Outcome.WRONG_PAGE, True)


@pytest.mark.parametrize(("external_id", "key"), [("DSR-2026-0043", None), (EXTERNAL_ID, SubjectKey(bytes(32)))])
def test_a_subject_that_it_is_not_about(keys, external_id, key):
    exhibits = Exhibits(subject=Subject(external_id, key or keys.subject_key("tests")))

    assert verify(certificate(keys), keys.public_keys(), exhibits).outcome is Outcome.WRONG_SUBJECT


def test_a_missed_threshold_is_no_success_and_no_forgery(keys):
    finding = verify(certificate(keys, verdict="failed"), keys.public_keys())

    assert (finding.outcome, finding.holds) == (Outcome.VERDICT_FAILED, True)
    assert "max_forget_accuracy is 0.4000, allowed 0.0500" in finding.reason


def test_other_weights_count_before_a_missed_threshold(keys, exhibits):
    assert exhibits.weights is not None
    exhibits.weights.write_bytes(b"others")

    finding = verify(certificate(keys, verdict="failed"), keys.public_keys(), Exhibits(weights=exhibits.weights))
    assert finding.outcome is Outcome.WRONG_WEIGHTS


@pytest.mark.parametrize("content", [b"", b"not JSON", b"{}", b'"text"', b"\x00\xff" * 50, b"[" * 100_000])
def test_what_is_no_certificate_at_all(keys, content):
    finding = verify(content, keys.public_keys())

    assert finding.outcome is Outcome.NOT_A_CERTIFICATE
    assert "\n" not in finding.reason


@pytest.mark.parametrize("payload", [b"\xff", b"[]", b"{}", b"7", b"[" * 100_000])
def test_what_is_signed_and_is_no_statement(keys, payload):
    finding = verify(seal(IN_TOTO, payload, keys.signer()), keys.public_keys())

    assert finding.outcome is Outcome.NOT_A_CERTIFICATE


@pytest.mark.parametrize("field", ["verdict", "thresholds", "report", "number"])
def test_a_statement_that_lacks_a_field(keys, field):
    predicate = statement_of(certificate(keys))["predicate"]
    del predicate[field]

    finding = verify(resigned(certificate(keys), keys, predicate=predicate), keys.public_keys())
    assert finding.outcome is Outcome.NOT_A_CERTIFICATE
    assert f"predicate.{field}" in finding.reason


def test_fields_that_a_later_release_adds_are_ignored(keys):
    predicate = statement_of(certificate(keys))["predicate"] | {"weather": "fine"}

    content = resigned(certificate(keys), keys, predicate=predicate, more=1)
    assert verify(changed(content, also="this"), keys.public_keys()).outcome is Outcome.VALID


def test_no_single_byte_of_the_file_can_be_changed_unnoticed(keys):
    """But for white space and the names of optional fields, which say nothing."""
    content = certificate(keys)
    quiet = set()
    for at in range(0, len(content), 7):
        other = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        if verify(other, keys.public_keys()).holds:
            quiet.add(content[max(0, content.rfind(b"\n", 0, at)) : content.find(b"\n", at)].strip().split(b":")[0])
    assert quiet <= {b'"payloadDigest"', b'"keyid"', b""}
