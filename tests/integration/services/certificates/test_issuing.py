"""Certificates are issued once, whatever happens in between, and only for what was committed."""

import base64
import hashlib
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session
from structlog.testing import capture_logs

from services.certificates import issuing, signing_keys
from services.certificates.certifier import Certifier
from services.certificates.issuing import Issuer, Uncertifiable
from services.certificates.verification import Outcome, verify
from services.jobs import lifecycle, outbox, queries
from services.purging import job_leftovers
from shared.crypto.certificate_keys import KeyFolder, NoSigningKey
from shared.errors import Conflict, NotFound, NotYet
from shared.ports.object_storage import Storage
from shared.postgres.database import Database
from shared.postgres.tables import Artifact, Job, SigningKey
from shared.schemas.certificate import CertifiedPurge
from shared.schemas.job import JobError
from shared.schemas.result import ArtifactRecord, PipelineResult
from shared.schemas.spec import JobSpec
from shared.settings import Settings
from tests.support import certificates
from tests.support.certificates import RECEIPT, WEIGHTS
from tests.support.world import World


@pytest.fixture
def keys(settings: Settings) -> KeyFolder:
    """The service's keys."""
    return certificates.key_folder(settings.signing_dir)


@pytest.fixture
def issuer(settings: Settings, storage: Storage) -> Issuer:
    """What the relay issues with."""
    return issuing.issuer_of(settings, storage)


@pytest.fixture
def world(database: Database, tenant: str, submit: Callable[..., str]) -> World:
    """A queued job."""
    return World(database, tenant, submit(external_id="DSR-7"))


def finish(world: World, storage: Storage, *, passed: bool = True, lie: str = "") -> None:
    """End the job as its worker would; `lie` says what of it is not true."""
    claim = world.claim()
    assert claim is not None
    result = left_behind(claim.spec, storage, passed=passed, lie=lie)
    assert world.do(lifecycle.complete, claim.attempt, result) is True


def left_behind(spec: JobSpec, storage: Storage, *, passed: bool, lie: str) -> PipelineResult:
    report = certificates.report(spec, verdict="passed" if passed else "failed")
    place = "model" if passed else "quarantine"
    files = {
        "report.json": report.model_dump_json().encode(),
        "report.html": certificates.PAGE,
        f"{place}/open_clip_model.safetensors": b"others" if lie == "weights" else WEIGHTS,
    }
    records = []
    for name, content in files.items():
        key = f"{spec.attempt_prefix}/{name}"
        storage.put(key, b"{}" if lie == name else content)
        sha256 = hashlib.sha256(content).hexdigest()
        records.append(ArtifactRecord(name=name, key=key, sha256=sha256, size_bytes=len(content)))
    return PipelineResult(
        verdict="passed" if passed else "failed",
        error=None if passed else JobError(code="thresholds_not_met", message="Too much is left."),
        artifacts=tuple(records),
        architecture="ViT",
        model_digest=records[1].sha256,
    )


def issue(world: World, issuer: Issuer) -> bool:
    with world.database.transaction() as session:
        return issuing.issue(session, world.job, issuer)


def fetch(world: World, storage: Storage, number: int | None = None) -> bytes:
    with world.database.transaction() as session:
        return storage.get(issuing.find(session, world.tenant, world.job, number).key)


def payload_of(content: bytes) -> bytes:
    return base64.b64decode(json.loads(content)["payload"])


def predicate_of(content: bytes) -> dict:
    return json.loads(payload_of(content))["predicate"]


def owed(world: World) -> list[str]:
    with world.database.transaction() as session:
        return issuing.owed(session)


@pytest.mark.parametrize(("passed", "outcome"), [(True, Outcome.VALID), (False, Outcome.VERDICT_FAILED)])
def test_a_job_with_a_verdict_is_owed_one_and_gets_one(world, storage, keys, issuer, passed, outcome):
    assert owed(world) == []
    finish(world, storage, passed=passed)
    assert owed(world) == [world.job]

    assert [issue(world, issuer), issue(world, issuer)] == [True, False]

    assert owed(world) == []
    content = fetch(world, storage)
    with world.database.transaction() as session:
        finding = verify(content, signing_keys.published(session))
    assert (finding.outcome, finding.key_id) == (outcome, keys.signer().key_id)
    predicate = predicate_of(content)
    assert (predicate["job"], predicate["number"], predicate["completes"]) == (world.job, 1, None)
    assert predicate["report"]["page"] == {"sha256": certificates.sha256(certificates.PAGE)}
    assert predicate["subject_reference"] == keys.subject_key("tests").reference("DSR-7")
    view = world.view()
    for name in ("received_at", "started_at", "finished_at"):
        assert predicate["times"][name] == json.loads(view.model_dump_json())[name]


def test_it_lies_with_what_the_winning_attempt_left(world, storage, keys, issuer):
    finish(world, storage)
    issue(world, issuer)

    with world.database.transaction() as session:
        (artifact,) = [a for a in queries.artifacts(session, world.tenant, world.job) if a.name == "certificate.json"]
    content = storage.get(artifact.key)
    assert artifact.key == f"tenants/{world.tenant}/jobs/{world.job}/1/certificate.json"
    assert (artifact.sha256, artifact.size_bytes) == (hashlib.sha256(content).hexdigest(), len(content))


def test_a_crash_before_the_commit_loses_nothing(world, storage, keys, issuer):
    finish(world, storage)
    with suppress(ZeroDivisionError), world.database.transaction() as session:
        issuing.issue(session, world.job, issuer)
        raise ZeroDivisionError
    with pytest.raises(NotYet):
        fetch(world, storage)

    assert owed(world) == [world.job]
    assert issue(world, issuer) is True
    assert len([o for o in storage.list(f"tenants/{world.tenant}/jobs") if "certificate" in o.key]) == 1
    assert verify(fetch(world, storage), keys.public_keys()).outcome is Outcome.VALID


def test_of_many_relays_one_issues(world, storage, keys, issuer):
    finish(world, storage)
    with ThreadPoolExecutor(8) as pool:
        issued = list(pool.map(lambda _: issue(world, issuer), range(8)))

    assert sum(issued) == 1
    assert predicate_of(fetch(world, storage))["number"] == 1


def test_while_one_relay_issues_another_one_passes_on(world, storage, keys, issuer):
    finish(world, storage)
    with world.database.transaction() as session:
        assert issuing.issue(session, world.job, issuer) is True
        assert issue(world, issuer) is False


@pytest.mark.parametrize("lie", ["report.json", "report.html", "weights"])
def test_what_the_storage_does_not_bear_out_is_not_signed(world, storage, keys, issuer, lie):
    finish(world, storage, lie=lie)

    with pytest.raises(Uncertifiable):
        issue(world, issuer)

    assert owed(world) == [world.job]
    with pytest.raises(NotYet, match="relay's log"):
        fetch(world, storage)


@pytest.mark.parametrize(
    ("content", "words"),
    [(WEIGHTS + b"!", "bytes"), (bytes(len(WEIGHTS)), "not those that were committed"), (None, "not in the storage")],
)
@pytest.mark.parametrize("passed", [True, False])
def test_weights_that_were_replaced_are_not_signed(world, storage, keys, issuer, passed, content, words):
    """Published ones, and those in quarantine."""
    finish(world, storage, passed=passed)
    (key,) = [o.key for o in storage.list(f"tenants/{world.tenant}/jobs") if o.key.endswith(".safetensors")]
    if content is None:
        storage.delete(key)
    else:
        storage.put(key, content)

    with pytest.raises(Uncertifiable, match=words):
        issue(world, issuer)
    storage.put(key, WEIGHTS)
    assert issue(world, issuer) is True


def test_the_certificate_of_a_purge_needs_the_weights_no_more(world, storage, keys, issuer):
    """The first one was of the same bytes; they may be deleted before what the job used is."""
    finish(world, storage)
    assert issue(world, replace(issuer, receipt_of=lambda *_: None)) is True
    (key,) = [o.key for o in storage.list(f"tenants/{world.tenant}/jobs") if o.key.endswith(".safetensors")]
    storage.delete(key)
    with world.database.transaction() as session:
        outbox.owe(session, [world.job])
    assert issue(world, replace(issuer, receipt_of=lambda *_: RECEIPT)) is True


def test_a_report_that_was_replaced_is_not_signed(world, storage, keys, issuer):
    finish(world, storage)
    (key,) = [o.key for o in storage.list(f"tenants/{world.tenant}/jobs") if o.key.endswith("report.json")]
    storage.put(key, storage.get(key) + b"\n")

    with pytest.raises(Uncertifiable, match="not the one that was committed"):
        issue(world, issuer)


def test_without_a_key_it_stays_owed(world, storage, issuer):
    finish(world, storage)

    with pytest.raises(NoSigningKey, match="signing create"):
        issue(world, issuer)

    assert owed(world) == [world.job]


class TestReceipts:
    """The purge is done after the job has ended: what was signed before stays, and is completed."""

    def with_receipt(self, issuer: Issuer, receipt: CertifiedPurge | None) -> Issuer:
        def receipt_of(_session: Session, _job_id: str) -> CertifiedPurge | None:
            return receipt

        return replace(issuer, receipt_of=receipt_of)

    def owe(self, world: World) -> None:
        with world.database.transaction() as session:
            outbox.owe(session, [world.job])

    def test_a_second_certificate_names_the_first(self, world, storage, keys, issuer):
        finish(world, storage)
        issue(world, issuer)
        first = fetch(world, storage)
        self.owe(world)
        assert owed(world) == [world.job]

        assert issue(world, self.with_receipt(issuer, RECEIPT)) is True

        second = fetch(world, storage)
        assert predicate_of(first)["purge"] is None
        assert predicate_of(second)["purge"]["objects"] == RECEIPT.objects
        assert predicate_of(second)["number"] == 2
        assert predicate_of(second)["completes"] == {"sha256": hashlib.sha256(payload_of(first)).hexdigest()}
        assert fetch(world, storage, 1) == first
        assert [verify(c, keys.public_keys()).outcome for c in (first, second)] == [Outcome.VALID] * 2

    def test_without_the_first_there_is_no_second(self, world, storage, keys, issuer):
        finish(world, storage)
        issue(world, issuer)
        (key,) = [o.key for o in storage.list(f"tenants/{world.tenant}/jobs") if "certificate" in o.key]
        storage.delete(key)
        self.owe(world)

        with pytest.raises(Uncertifiable, match="certificate 1 is not in the storage"):
            issue(world, self.with_receipt(issuer, RECEIPT))

    def test_without_the_report_the_first_one_stands(self, world, storage, keys, issuer):
        """The report was removed when its time was over; what is confirmed later can be certified no more."""
        finish(world, storage)
        assert issue(world, issuer) is True
        with world.database.transaction() as session:
            job_leftovers.remove(session, world.job, "report", "retention_ended")
            outbox.owe(session, [world.job])
        storage.delete(f"tenants/{world.tenant}/jobs/{world.job}/1/report.json")
        assert issue(world, self.with_receipt(issuer, RECEIPT)) is True
        assert owed(world) == []
        assert predicate_of(fetch(world, storage))["number"] == 1

    def test_with_nothing_new_there_is_no_second_one(self, world, storage, keys, issuer):
        finish(world, storage)
        issue(world, self.with_receipt(issuer, RECEIPT))
        for again in (issuer, self.with_receipt(issuer, RECEIPT)):
            self.owe(world)
            issue(world, again)

        assert owed(world) == []
        assert predicate_of(fetch(world, storage))["number"] == 1
        with pytest.raises(Conflict, match="no certificate 2; the last one is 1"):
            fetch(world, storage, 2)


def test_who_has_none(world, storage, stranger):
    with pytest.raises(NotYet, match="queued"):
        fetch(world, storage)
    with world.database.transaction() as session, pytest.raises(NotFound):
        issuing.find(session, stranger, world.job)
    world.cancel()
    with pytest.raises(Conflict, match="without a verdict"):
        fetch(world, storage)
    assert owed(world) == []


class TestCertifier:
    """One round of the relay."""

    def test_one_that_cannot_be_certified_holds_up_no_other(self, database, tenant, submit, storage, settings, keys):
        bad, good = (World(database, tenant, submit()) for _ in range(2))
        finish(bad, storage, lie="report.json")
        finish(good, storage)
        certifier = Certifier(database, storage, settings)

        with capture_logs() as logs:
            rounds = [certifier.round() for _ in range(3)]

        assert rounds == [2, 0, 0]
        assert owed(good) == [bad.job]
        assert [(log["event"], log["job_id"]) for log in logs] == [
            ("certificate.refused", bad.job),
            ("certificate.issued", good.job),
        ]

    def test_one_that_could_not_be_certified_is_tried_again_at_growing_intervals(self, world, storage, settings, keys):
        finish(world, storage, lie="report.json")
        now = [0.0]
        certifier = Certifier(world.database, storage, settings, clock=lambda: now[0])
        tried = []
        for now[0] in range(0, 10_000, 30):
            if certifier.round():
                tried.append(now[0])
        assert tried == [0, 60, 180, 420, 900, 1860, 3780, 7380]
        with world.database.transaction() as session:
            spec = JobSpec.model_validate(session.get_one(Job, world.job).spec | {"attempt": 1})
        left_behind(spec, storage, passed=True, lie="")  # the report is found again
        now[0] = 11_000.0
        assert certifier.round() == 1
        assert owed(world) == []

    def test_a_rotated_key_is_published_before_it_signs(self, database, storage, settings, keys):
        certifier = Certifier(database, storage, settings)
        for _ in range(2):
            certifier.round()
            with database.transaction() as session:
                assert list(signing_keys.published(session)) == list(keys.public_keys())
            keys.rotate()

    def test_a_missing_key_is_told_once_and_waited_for(self, world, storage, settings):
        finish(world, storage)
        quick = settings.model_copy(update={"reconcile_seconds": 0.001, "relay_seconds": 0.001})
        certifier = Certifier(world.database, storage, quick)
        stop = threading.Event()

        with capture_logs() as logs:
            for _ in range(3):
                certifier.work(stop)
        certificates.key_folder(settings.signing_dir)
        certifier.work(stop)

        assert [log["event"] for log in logs] == ["certificate.no_signing_key"]
        assert owed(world) == []


def test_a_revoked_key_is_published_no_more(world, storage, keys, issuer):
    finish(world, storage)
    issue(world, issuer)
    old, new = keys.rotate()

    for _ in range(2):
        with world.database.transaction() as session:
            signing_keys.revoke(session, old)
            signing_keys.publish(session, keys.signer())
    with world.database.transaction() as session:
        assert list(signing_keys.published(session)) == [new]
        assert verify(fetch(world, storage), signing_keys.published(session)).outcome is Outcome.UNKNOWN_KEY
        assert session.scalars(select(SigningKey.id)).all() == [old, new]
        with pytest.raises(Conflict, match="signing list"):
            signing_keys.revoke(session, "0" * 32)


def test_jobs_from_before_certificates_get_one(world, storage, keys, issuer):
    """Their reports say nothing of the code; the certificate says so."""
    claim = world.claim()
    assert claim is not None
    body = certificates.report(claim.spec).model_dump(mode="json")
    for later in ("build", "measures", "curves", "not_measured", "evidence"):
        del body[later]
    result = left_behind(claim.spec, storage, passed=True, lie="")
    content = json.dumps(body).encode()
    storage.put(result.artifacts[0].key, content)
    record = result.artifacts[0].model_copy(update={"sha256": hashlib.sha256(content).hexdigest()})
    world.do(lifecycle.complete, 1, result.model_copy(update={"artifacts": (record, *result.artifacts[1:])}))

    assert issue(world, issuer) is True

    predicate = predicate_of(fetch(world, storage))
    assert (predicate["software"]["code"], predicate["evidence"]) == (None, None)
    assert any("by its version alone" in limit for limit in predicate["limits"])


def test_the_winner_is_known_by_its_artifacts_alone(world, storage, keys, issuer):
    """A certificate adds no attempt that the clean-up would take for another one's."""
    finish(world, storage)
    issue(world, issuer)
    with world.database.transaction() as session:
        assert set(session.scalars(select(Artifact.attempt))) == {1}
        assert session.scalars(select(Job.attempt)).all() == [1]
