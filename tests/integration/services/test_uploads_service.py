"""An upload is stored and written down, or nothing of it stays; a tenant stores what it may and no more."""

import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from services.access import idempotency, quotas
from services.catalog import datasets, models, unfinished_uploads
from services.catalog.unfinished_uploads import Unfinished, sweep_unfinished_uploads
from services.catalog.uploads import Received, Uploads
from services.purging import datasets as dataset_purge
from services.purging import sweeper
from shared.errors import Conflict, IdempotencyKeyReused, InvalidRequest, StorageFull, Unavailable
from shared.files.inspection import Inspectors
from shared.ports.embedded_servers import free_port
from shared.ports.object_storage import Storage
from shared.postgres.database import Database
from shared.postgres.tables import Dataset, Model, UnfinishedUpload
from shared.schemas.model import ModelRegistration
from shared.schemas.model_reference import ModelReference
from shared.settings import Settings
from tests.support import requests

NOW = timedelta()


class LostAnswer(Exception):
    """The connection broke."""


@pytest.fixture(scope="module")
def inspectors() -> Iterator[Inspectors]:
    found = Inspectors(2)
    yield found
    found.close()


@pytest.fixture
def uploads(database: Database, storage: Storage, settings: Settings, tenant: str, inspectors: Inspectors) -> Uploads:
    return Uploads(
        tenant_id=tenant,
        begin=database.transaction,
        storage=storage,
        inspectors=inspectors,
        settings=settings,
        gone=threading.Event(),
    )


@pytest.fixture
def archive(tmp_path: Path) -> Received:
    return received(requests.archive(tmp_path / "farm.zip", "horse", "cow"), tmp_path)


def received(path: Path, folder: Path) -> Received:
    content = path.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    return Received(path=path, filename=path.name, sha256=sha256, size_bytes=len(content), folder=folder)


def add(uploads: Uploads, file: Received, call: idempotency.Call | None = None) -> idempotency.Answer:
    return uploads.add_dataset(file, call, name="farm", purge_after_job=None)


def objects(storage: Storage) -> list[str]:
    return [found.key for found in storage.list("tenants")]


def count(database: Database, table: type) -> int:
    with database.transaction() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def limited(uploads: Uploads, **limits: int) -> Uploads:
    return replace(uploads, settings=uploads.settings.model_copy(update=limits))


class TestWhatComesOfIt:
    def test_a_data_set(self, uploads, archive, database, storage):
        assert add(uploads, archive).status == 201
        with database.transaction() as session:
            row = session.scalars(select(Dataset)).one()
            assert (row.digest, row.size_bytes, row.images) == (archive.sha256, archive.size_bytes, 2)
        assert objects(storage) == [row.key]
        assert count(database, UnfinishedUpload) == 0

    def test_a_model(self, uploads, database, storage, tmp_path):
        file = received(requests.safetensors(tmp_path / "clip.safetensors"), tmp_path)
        uploads.add_model(file, None, name="clip", architecture=requests.UNKNOWN_ARCHITECTURE, unpacked_bytes=1000)
        with database.transaction() as session:
            row = session.scalars(select(Model)).one()
            assert (row.digest, row.size_bytes, row.architecture) == (
                file.sha256,
                file.size_bytes,
                requests.UNKNOWN_ARCHITECTURE,
            )
        assert len(objects(storage)) == 2
        assert count(database, UnfinishedUpload) == 0

    def test_what_is_no_data_set_leaves_nothing(self, uploads, database, storage, tmp_path):
        (tmp_path / "no archive").write_bytes(b"x")
        with pytest.raises(InvalidRequest):
            add(uploads, received(tmp_path / "no archive", tmp_path))
        assert objects(storage) == []
        assert count(database, UnfinishedUpload) == 0

    def test_the_same_request_again_is_replayed_and_stores_nothing(self, uploads, archive, database, storage):
        call = idempotency.call(uploads.tenant_id, "k", method="POST", path="/datasets", payload=archive.sha256)
        first = add(uploads, archive, call)
        again = add(uploads, archive, call)
        assert (again.body, again.replayed) == (first.body, True)
        with pytest.raises(IdempotencyKeyReused):
            add(uploads, archive, replace(call, fingerprint="another"))
        assert len(objects(storage)) == count(database, Dataset) == 1
        assert count(database, UnfinishedUpload) == 0

    def test_of_twins_that_come_at_once_one_is_stored(self, uploads, archive, database, storage, monkeypatch):
        call = idempotency.call(uploads.tenant_id, "k", method="POST", path="/datasets", payload=archive.sha256)
        monkeypatch.setattr(Uploads, "_answered", lambda *_: None)  # both came before either was answered
        assert [add(uploads, archive, call).replayed for _ in range(2)] == [False, True]
        assert len(objects(storage)) == count(database, Dataset) == 1
        assert count(database, UnfinishedUpload) == 0


class TestWhenSomethingBreaks:
    @contextmanager
    def breaking(self, uploads: Uploads, number: int, *, committed: bool) -> Iterator[Session]:
        """The last of its transactions is broken off, before or after it was committed."""
        self.begun = getattr(self, "begun", 0) + 1
        if self.begun == number and committed:
            with uploads.begin() as session:
                yield session
            raise LostAnswer
        with uploads.begin() as session:
            yield session
            if self.begun == number:
                raise LostAnswer

    @pytest.mark.parametrize("committed", [False, True])
    def test_a_commit_whose_answer_is_lost(self, uploads, archive, database, storage, committed):
        breaking = replace(uploads, begin=lambda: self.breaking(uploads, 2, committed=committed))
        with pytest.raises(LostAnswer):
            add(breaking, archive)
        assert len(objects(storage)) == count(database, Dataset) == committed
        assert count(database, UnfinishedUpload) == 0

    def test_a_storage_that_is_away_is_tidied_up_when_it_is_back(
        self, uploads, archive, database, storage, settings, monkeypatch
    ):
        for name, value in {"ENDPOINT": f"http://127.0.0.1:{free_port()}", "REGION": "x", "ALLOW_HTTP": "true"}.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
        with pytest.raises(Unavailable):
            add(replace(uploads, storage=Storage("s3://nowhere")), archive)
        assert (count(database, Dataset), count(database, UnfinishedUpload)) == (0, 1)

        assert sweep_unfinished_uploads(database, storage, timedelta(hours=6)) == 1  # it was given up: no need to wait
        assert count(database, UnfinishedUpload) == 0

    @pytest.fixture
    def dead(self, uploads, archive, database, storage, settings) -> Unfinished:
        """An upload whose gateway died between object and commit."""
        upload = Unfinished(
            id="ds_dead", tenant_id=uploads.tenant_id, kind="dataset", size_bytes=archive.size_bytes,
            key=datasets.prefix(uploads.tenant_id, "ds_dead"),
        )  # fmt: skip
        with database.transaction() as session:
            unfinished_uploads.begin(session, upload, settings)
        datasets.store(storage, uploads.tenant_id, archive.path, settings, upload.id)
        return upload

    def test_a_gateway_that_dies_leaves_what_the_relay_finds(self, dead, database, storage):
        assert sweep_unfinished_uploads(database, storage, timedelta(hours=6)) == 0
        assert objects(storage) == [dead.key]
        assert sweep_unfinished_uploads(database, storage, NOW) == 1
        assert objects(storage) == []
        assert count(database, UnfinishedUpload) == 0

    def test_what_was_given_up_can_not_be_finished(self, dead, database, storage):
        with database.transaction() as session:
            session.get_one(UnfinishedUpload, dead.id).given_up_at = func.now()
        with pytest.raises(Conflict, match="given up"), database.transaction() as session:
            unfinished_uploads.finish(session, dead.id)

    def test_what_is_being_finished_is_not_taken_back(self, dead, database, storage):
        with ThreadPoolExecutor(1) as pool:
            with database.transaction() as session:
                unfinished_uploads.finish(session, dead.id)
                sweeping = pool.submit(sweep_unfinished_uploads, database, storage, NOW)
            assert sweeping.result() == 0
        assert objects(storage) == [dead.key]


class TestQuotas:
    def test_bytes(self, uploads, archive, database, storage):
        tight = limited(uploads, max_tenant_bytes=2 * archive.size_bytes)
        add(tight, archive)
        add(tight, archive)
        with pytest.raises(StorageFull, match="EFFACE_MAX_TENANT_BYTES") as error:
            add(tight, archive)
        full = error.value
        assert (full.policy, full.used, full.allowed) == (quotas.BYTES, 2 * archive.size_bytes, 2 * archive.size_bytes)
        assert len(objects(storage)) == 2
        with pytest.raises(StorageFull):
            tight.check_room("model", 1)
        tight.check_room("model", 0)
        add(limited(uploads, max_tenant_bytes=0), archive)

    def test_they_hold_exactly_when_many_come_at_once(self, uploads, archive, database, storage):
        tight = limited(uploads, max_tenant_bytes=3 * archive.size_bytes)

        def one(_: int) -> bool:
            try:
                return add(tight, archive).status == 201
            except StorageFull:
                return False

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(one, range(8))) == 3
        assert len(objects(storage)) == count(database, Dataset) == 3

    def test_numbers(self, uploads, archive, clip, database, settings, tmp_path):
        tight = limited(uploads, max_tenant_datasets=1, max_tenant_models=1)
        add(tight, archive)
        with pytest.raises(StorageFull, match="1 data sets of the 1"):
            add(tight, archive)
        registration = ModelRegistration(name="clip", model=ModelReference(source=f"local-dir:{clip}"))
        tight.settings.path_roots.append(tmp_path)
        with database.transaction() as session:
            models.register(session, tight.tenant_id, registration, tight.settings)
        with pytest.raises(StorageFull, match="models"), database.transaction() as session:
            models.register(session, tight.tenant_id, registration, tight.settings)

    def test_another_tenant_is_not_counted(self, uploads, archive, stranger):
        tight = limited(uploads, max_tenant_datasets=1)
        add(tight, archive)
        add(replace(tight, tenant_id=stranger), archive)

    def test_what_is_on_its_way_counts_and_what_is_purged_does_not(self, uploads, archive, database, storage, settings):
        add(uploads, archive)
        upload = Unfinished(id="x", tenant_id=uploads.tenant_id, kind="dataset", key="x", size_bytes=7)
        with database.transaction() as session:
            unfinished_uploads.begin(session, upload, settings)
            assert quotas.stored(session, uploads.tenant_id) == quotas.Stored(archive.size_bytes + 7, 2, 0)
        sweep_unfinished_uploads(database, storage, NOW)
        with database.transaction() as session:
            doomed = dataset_purge.begin(
                session, session.scalars(select(Dataset.id)).one(), settings, forced="restored"
            )
        assert doomed is not None
        sweeper.purge(database, storage, doomed)
        with database.transaction() as session:
            assert quotas.stored(session, uploads.tenant_id) == quotas.Stored(0, 0, 0)

    def test_results_of_jobs_count_in_bytes_alone(self, uploads, database):
        values = {"id": "mdl_r", "reference": "storage:x", "size_bytes": 5, "job_id": "job_x"}
        with database.transaction() as session:
            models.add(session, tenant_id=uploads.tenant_id, name="after", values=values)
            models.add(
                session,
                tenant_id=uploads.tenant_id,
                name="hub",
                values=values | {"id": "mdl_h", "reference": "hf-hub:a/b"},
            )
            assert quotas.stored(session, uploads.tenant_id) == quotas.Stored(5, 0, 0)
