"""From a request to a certificate: the real pipeline, relay, worker and child; checked by another implementation."""

import base64
import hashlib
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import jsonschema
import pytest
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey

from services.certificates import issuing, signing_keys
from services.certificates.verification import Exhibits, Outcome, verify
from services.jobs import queries, submission
from shared.build import ROOT, code_digest
from shared.crypto.certificate_keys import KeyFolder
from shared.schemas.certificate import SCHEMA_FILE
from shared.states import JobState
from tests.support import umbrellas
from tests.support.certificates import key_folder
from tests.support.fleet import Fleet, wait_until

PATIENCE_SECONDS = 240.0
"""Two real erasures, and the imports of their processes."""
pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def keys(fleet: Fleet) -> KeyFolder:
    """The relay's keys."""
    return key_folder(fleet.settings.signing_dir)


def certificates_are_issued(fleet: Fleet) -> bool:
    with fleet.database.transaction() as session:
        return issuing.owed(session) == []


@pytest.fixture
def ended(fleet: Fleet, keys: KeyFolder) -> Iterator[dict[JobState, str]]:
    """A job that passed and one that missed a threshold, both certified; by state."""
    umbrellas.write_data(fleet.folder)
    fleet.settings = fleet.settings.model_copy(update={"pipeline": "worker.pipeline:run_pipeline", "lease_seconds": 60})
    found = {}
    with fleet.relay():
        fleet.worker()
        for verdict, state in (("passed", JobState.SUCCEEDED), ("failed", JobState.FAILED)):
            request = umbrellas.request(
                fleet.folder, verdict, external_id=f"DSR-{verdict}", metadata={"who": "Jane Doe"}
            )
            with fleet.database.transaction() as session:
                found[state] = job = submission.submit(session, fleet.tenant_id, request, fleet.settings).id
            wait_until(partial(has_ended, fleet, job), f"{job} does not end", PATIENCE_SECONDS)
            assert fleet.job(job).state is state, fleet.job(job).error
        wait_until(lambda: certificates_are_issued(fleet), "no certificate is issued")
        fleet.check_promises()
        yield found


def has_ended(fleet: Fleet, job: str) -> bool:
    return fleet.job(job).state.final


def fetched(fleet: Fleet, job: str) -> tuple[bytes, dict[str, bytes]]:
    """Return the certificate, and every file that the job left, by name."""
    with fleet.database.transaction() as session:
        files = queries.artifacts(session, fleet.tenant_id, job)
        certificate = fleet.storage.get(issuing.find(session, fleet.tenant_id, job).key)
    return certificate, {file.name: fleet.storage.get(file.key) for file in files}


def test_every_verdict_is_certified(fleet: Fleet, keys: KeyFolder, ended: dict[JobState, str], tmp_path: Path) -> None:
    check(fleet, keys, ended[JobState.SUCCEEDED], tmp_path, "model", Outcome.VALID)
    check(fleet, keys, ended[JobState.FAILED], tmp_path, "quarantine", Outcome.VERDICT_FAILED)


def check(fleet: Fleet, keys: KeyFolder, job: str, folder: Path, place: str, outcome: Outcome) -> None:
    """Check a job's certificate with our code and with another implementation."""
    certificate, files = fetched(fleet, job)
    (folder / "report.json").write_bytes(files["report.json"])
    (folder / "weights").write_bytes(files[f"{place}/open_clip_model.safetensors"])

    exhibits = Exhibits(weights=folder / "weights", report=folder / "report.json")
    with fleet.database.transaction() as session:
        finding = verify(certificate, signing_keys.published(session), exhibits)
    assert finding.outcome is outcome, finding.reason
    assert verify(certificate, keys.public_keys(), Exhibits(weights=folder / "report.json")).outcome is (
        Outcome.WRONG_WEIGHTS
    )

    envelope = Envelope.from_dict(json.loads(certificate))
    key = SSlibKey.from_crypto(keys.signer().public_key)
    key.keyid = keys.signer().key_id
    envelope.verify([key], 1)
    statement = json.loads(envelope.payload)
    jsonschema.validate(statement, json.loads(SCHEMA_FILE.read_text()))
    weights = hashlib.sha256(files[f"{place}/open_clip_model.safetensors"]).hexdigest()
    assert statement["subject"][0]["digest"]["sha256"] == weights
    assert statement["predicate"]["software"]["code"]["sha256"] == code_digest(ROOT)
    text = base64.b64decode(json.loads(certificate)["payload"]).decode()
    assert [
        word
        for word in ("DSR-passed", "DSR-failed", "Jane Doe", "deleted", "anonym", str(fleet.folder))
        if word in text
    ] == []
