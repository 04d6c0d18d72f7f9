"""Certificates, keys and the schema over HTTP, and the commands that fetch and check them."""

import json
import os
import subprocess
import sys
import threading

import jsonschema
import pytest
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey

from services.certificates.certifier import Certifier
from services.certificates.verification import Outcome, verify
from services.jobs import lifecycle
from shared.crypto.public_keys import read_public_keys
from shared.postgres.tables import Job
from shared.schemas.job import JobError
from shared.schemas.result import ArtifactRecord, PipelineResult
from shared.schemas.spec import JobSpec
from tests.support import certificates

KEYS = "/.well-known/efface-keys.json"


@pytest.fixture
def keys(settings):
    """The service's signing keys."""
    return certificates.key_folder(settings.signing_dir)


@pytest.fixture
def certifier(database, storage, settings, keys) -> Certifier:
    """The relay's part, a round at a time."""
    return Certifier(database, storage, settings)


@pytest.fixture
def ended(make_job, database, storage):
    """Makes jobs of alice's that ended with a real report."""

    def make(*, passed: bool = True) -> str:
        job_id = make_job.running()
        with database.transaction() as session:
            spec = JobSpec.model_validate(session.get(Job, job_id).spec | {"attempt": 1})
        report = certificates.report(spec, verdict="passed" if passed else "failed")
        place = "model" if passed else "quarantine"
        files = {
            "report.json": report.model_dump_json(indent=2).encode(),
            f"{place}/open_clip_model.safetensors": certificates.WEIGHTS,
            f"{place}/open_clip_config.json": b"{}",
        }
        records = [record(spec, storage, name, content) for name, content in files.items()]
        error = None if passed else JobError(code="thresholds_not_met", message="Too much is left.")
        result = PipelineResult(
            verdict=report.verdict,
            error=error,
            artifacts=tuple(records),
            architecture="ViT",
            model_digest=records[1].sha256,
        )
        with database.transaction() as session:
            assert lifecycle.complete(session, job_id, 1, result)
        return job_id

    return make


def record(spec: JobSpec, storage, name: str, content: bytes) -> ArtifactRecord:
    key = f"{spec.attempt_prefix}/{name}"
    storage.put(key, content)
    return ArtifactRecord(name=name, key=key, sha256=certificates.sha256(content), size_bytes=len(content))


def published(client) -> dict:
    return read_public_keys(client.get(KEYS).content)


@pytest.mark.parametrize(("passed", "outcome"), [(True, Outcome.VALID), (False, Outcome.VERDICT_FAILED)])
def test_a_certificate_holds_by_the_published_keys(alice, ended, certifier, passed, outcome):
    job_id = ended(passed=passed)
    certifier.round()

    response = alice.get(f"/jobs/{job_id}/certificate")

    assert (response.status_code, response.headers["Content-Type"]) == (200, "application/json")
    assert verify(response.content, published(alice)).outcome is outcome


def test_it_holds_for_another_implementation_and_for_the_served_schema(alice, ended, certifier):
    job_id = ended()
    certifier.round()
    envelope = Envelope.from_dict(alice.get(f"/jobs/{job_id}/certificate").json())
    ((key_id, public_key),) = published(alice).items()
    key = SSlibKey.from_crypto(public_key)
    key.keyid = key_id

    envelope.verify([key], 1)

    schema = alice.get("/schemas/certificate-1.json")
    assert schema.headers["Content-Type"] == "application/schema+json"
    jsonschema.validate(json.loads(envelope.payload), schema.json())


def test_before_it_is_issued_the_answer_is_not_yet(alice, make_job, ended, certifier):
    for job_id in (make_job.queued(), make_job.running(), ended()):
        refused = alice.get(f"/jobs/{job_id}/certificate")
        assert (refused.status_code, refused.json()["code"]) == (409, "not_yet")


def test_a_job_without_a_verdict_has_none(alice, make_job, certifier):
    job_id = make_job.queued()
    alice.post(f"/jobs/{job_id}/cancel")
    certifier.round()

    refused = alice.get(f"/jobs/{job_id}/certificate")
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    assert "without a verdict" in refused.json()["detail"]


def test_one_of_another_tenant_is_not_found(alice, bob, ended, certifier):
    job_id = ended()
    certifier.round()

    assert bob.get(f"/jobs/{job_id}/certificate").status_code == 404
    assert alice.get(f"/jobs/{job_id}/certificate").status_code == 200


def test_one_that_is_known_is_not_sent_again(alice, ended, certifier):
    path = f"/jobs/{ended()}/certificate"
    certifier.round()

    response = alice.get(path, headers={"If-None-Match": alice.get(path).headers["ETag"]})

    assert (response.status_code, response.content) == (304, b"")


@pytest.mark.parametrize(("number", "status"), [(1, 200), (2, 409), (0, 422), (10**30, 422)])
def test_a_certificate_by_its_number(alice, ended, certifier, number, status):
    job_id = ended()
    certifier.round()

    assert alice.get(f"/jobs/{job_id}/certificate", params={"number": number}).status_code == status


def test_the_key_set_is_open_cacheable_and_keeps_old_keys(alice, certifier, keys):
    certifier.round()
    keys.rotate()
    certifier.round()

    response = alice.get(KEYS, headers={"Authorization": ""})

    assert response.headers["Content-Type"] == "application/jwk-set+json"
    assert response.headers["Cache-Control"] == "public, max-age=300"
    assert [key["kid"] for key in response.json()["keys"]] == list(keys.public_keys())
    assert all("d" not in key for key in response.json()["keys"])


def test_before_anything_was_signed_the_key_set_is_empty(alice):
    assert alice.get(KEYS).json() == {"keys": []}


def test_the_schema_that_is_known_is_not_sent_again(alice):
    path = "/schemas/certificate-1.json"

    assert alice.get(path, headers={"If-None-Match": alice.get(path).headers["ETag"]}).status_code == 304


def test_the_client_waits_for_a_certificate(alice_client, ended, certifier):
    job_id = ended()
    later = threading.Timer(0.1, certifier.round)
    later.start()
    content = alice_client.certificate(job_id, patience_seconds=30)
    later.join()

    assert verify(content, read_public_keys(alice_client.public_keys())).outcome is Outcome.VALID


def test_the_commands_fetch_and_check(server, make_key, ended, certifier, settings, tmp_path):
    job_id = ended()
    certifier.round()
    variables = {
        "EFFACE_URL": server,
        "EFFACE_API_KEY": make_key("alice"),
        "EFFACE_SIGNING_DIR": str(tmp_path / "none"),
    }

    def efface(*arguments: str) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "api.cli", *arguments]
        return subprocess.run(command, capture_output=True, env=os.environ | variables, timeout=60)

    for what in ("certificate", "report"):
        (tmp_path / f"{what}.json").write_bytes(efface(what, job_id).stdout)
    checked = [str(tmp_path / "certificate.json"), "--report", str(tmp_path / "report.json")]
    done = efface("verify", *checked, "--keys-url", server + KEYS)

    assert (done.returncode, done.stdout.split(b":")[0]) == (0, b"valid"), done.stderr
