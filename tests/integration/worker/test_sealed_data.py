"""A worker opens sealed archives in its scratch folder, and what was to be forgotten is gone when its job has ended."""

import base64
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
from pydantic import SecretStr

from services.catalog import datasets
from services.jobs import submission
from services.purging import job_leftovers
from shared.errors import JobFailure, Unavailable
from shared.ports.object_storage import ObjectMissing, Storage
from shared.postgres.tables import Job
from shared.schemas.spec import DataSource, DataSources, JobSpec
from shared.settings import Settings
from tests.support import certificates, requests
from tests.support.fleet import Fleet, wait_until
from tests.support.tiny import write_model, write_pictures
from worker.data.archives import open_images

LONG_SECONDS = 240.0
"""Torch is imported, and three stages run, on whatever else this machine does."""


@pytest.fixture
def sealed_spec(settings: Settings, storage: Storage, tmp_path: Path) -> JobSpec:
    """A job with a stored archive, as a worker gets it."""
    stored = datasets.store(storage, "t", requests.archive(tmp_path / "up.zip", "horse", "dog"), settings)
    key = base64.b64encode(stored.data_key).decode()
    source = DataSource(name="forget", uri=f"storage:{stored.key}", id=stored.dataset_id, data_key=key)
    return certificates.spec().model_copy(update={"data": DataSources(forget=source)})


@pytest.fixture
def sealed(sealed_spec: JobSpec, settings: Settings) -> DataSource:
    """The archive as the child gets it."""
    opened = datasets.with_opened_keys(sealed_spec, settings).data.forget
    assert opened is not None
    return opened


def test_it_is_opened_below_the_scratch_folder(sealed: DataSource, storage: Storage, tmp_path: Path) -> None:
    images = open_images(sealed, scratch=tmp_path / "scratch", storage=storage)
    assert images.names() == ["dog", "horse"]
    assert all(path.is_relative_to(tmp_path / "scratch") for path in images.paths)
    assert b"horse/0.png" not in storage.get(sealed.uri.removeprefix("storage:"))


def test_bytes_that_were_changed_fail_the_job(sealed: DataSource, storage: Storage, tmp_path: Path) -> None:
    key = sealed.uri.removeprefix("storage:")
    content = storage.get(key)
    storage.put(key, content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(JobFailure, match="changed or cut off") as failure:
        open_images(sealed, scratch=tmp_path / "scratch", storage=storage)
    assert failure.value.code == "invalid_dataset"


def test_an_archive_that_was_purged_fails_the_job(sealed: DataSource, storage: Storage, tmp_path: Path) -> None:
    storage.delete(sealed.uri.removeprefix("storage:"))
    with pytest.raises(JobFailure, match="not there any more"):
        open_images(sealed, scratch=tmp_path / "scratch", storage=storage)


def test_a_worker_with_another_master_key_can_be_mended(sealed_spec: JobSpec, settings: Settings) -> None:
    """It says which setting is wrong, and the job is tried again; the child never has a master key at all."""
    other = settings.model_copy(update={"master_key": SecretStr(base64.b64encode(bytes(32)).decode())})
    with pytest.raises(Unavailable, match="EFFACE_MASTER_KEY"):
        datasets.with_opened_keys(sealed_spec, other)


def upload(fleet: Fleet, folder: Path, classes: tuple[str, ...], seed: int) -> str:
    pictures = write_pictures(folder / "pictures", classes, count=10, seed=seed)
    path = folder / "archive.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(pictures.rglob("*.png")):
            archive.write(file, file.relative_to(pictures))
    summary = datasets.inspect(path, fleet.settings)
    stored = datasets.store(fleet.storage, fleet.tenant_id, path, fleet.settings)
    with fleet.database.transaction() as session:
        size = path.stat().st_size
        view = datasets.add(
            session, tenant_id=fleet.tenant_id, stored=stored, name="up", size_bytes=size, summary=summary
        )
    return view.id


def test_a_real_job_reads_sealed_images_and_leaves_none(fleet: Fleet, tmp_path: Path) -> None:
    fleet.settings = fleet.settings.model_copy(update={"pipeline": "worker.pipeline:run_pipeline", "lease_seconds": 30})
    clip = write_model(tmp_path / "tiny", "vit")
    forget = upload(fleet, tmp_path / "f", ("red",), 0)
    retain = upload(fleet, tmp_path / "r", ("red", "green", "blue"), 1)
    other = upload(fleet, tmp_path / "e", ("green", "blue"), 2)
    request = requests.subgroup(
        clip,
        forget=forget,
        retain=retain,
        target={"type": "subgroup", "class": "red", "subgroup": "dark"},
        data={"forget": forget, "retain": retain, "evaluation": [{"name": "other", "dataset": other}]},
        method={"name": "three_stage", "parameters": {"forget_steps": 2, "remind_steps": 2}},
        thresholds={"max_forget_accuracy": 1, "max_retain_drop": 1, "max_transfer_drop": 1},
    )
    seen: dict[str, bytes] = {}

    def look() -> bool:
        """Keep what a backup would have while the job runs."""
        for found in fleet.storage.list(f"tenants/{fleet.tenant_id}"):
            if found.key.endswith(".safetensors") and found.key not in seen and "/model/" not in found.key:
                with suppress(ObjectMissing):
                    seen[found.key] = fleet.storage.get(found.key)
        return fleet.job(job).state.final

    with fleet.relay():
        fleet.worker()
        with fleet.database.transaction() as session:
            job = submission.submit(session, fleet.tenant_id, request, fleet.settings).id
        wait_until(look, "the job does not end", LONG_SECONDS)
        assert fleet.job(job).verdict is not None, fleet.job(job).error
        wait_until(lambda: receipt(fleet, job).complete, "it is not purged")
    found = {entry.dataset: entry.state for entry in receipt(fleet, job).datasets}
    assert found == {forget: "purged", retain: "kept", other: "kept"}
    kinds = {o.key.split("/")[4] for o in receipt(fleet, job).leftovers}
    assert kinds == {"checkpoints", "cache"}  # predictions on forget images were with the job
    cached = fleet.storage.list(f"tenants/{fleet.tenant_id}/cache/evaluations")
    with fleet.database.transaction() as session:
        digest = datasets.get(session, fleet.tenant_id, other).digest
    assert {o.key.split("/")[4] for o in cached} == {digest}  # and the others are filed under their data set
    assert {key.split("/")[4] for key in seen} >= {"checkpoints", "cache"}
    assert all(not content[8:].startswith(b"{") for content in seen.values())  # no header of safetensors: none reads
    with fleet.database.transaction() as session:
        row = session.get_one(Job, job)
        assert row.data_key is None and row.key_destroyed_at == row.finished_at
    assert receipt(fleet, job).key_destroyed_at is not None
    fleet.check_promises()


def receipt(fleet: Fleet, job: str) -> job_leftovers.PurgeReceipt:
    with fleet.database.transaction() as session:
        return job_leftovers.receipt(session, fleet.tenant_id, job)
