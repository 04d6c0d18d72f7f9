"""The drill: back up, go on, restore; what was purged meanwhile does not come back, and everything else does."""

import base64
import fcntl
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import func, select

import migrations
from services.access import api_keys
from services.audit_log import chain
from services.catalog import datasets, models
from services.jobs import ending, submission
from services.purging import datasets as dataset_purge
from services.purging import models as model_purge
from services.purging import sweeper
from shared import home as home_file
from shared.errors import NotFound
from shared.ports.embedded_servers import embedded_postgres
from shared.ports.object_storage import Storage
from shared.postgres.database import Database, make_engine
from shared.postgres.tables import AuditEntry, Dataset, Job, Model
from shared.settings import Settings
from tests.support import requests


class Home:
    """A home of `efface up`, which is stopped."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "master-key").write_text(base64.b64encode(os.urandom(32)).decode())
        (folder / "redis" / "appendonlydir").mkdir(parents=True)
        self.storage = Storage(f"file://{folder / 'objects'}")

    @contextmanager
    def opened(self) -> Iterator[tuple[Database, Settings]]:
        """Run its Postgres."""
        with embedded_postgres(self.folder / "postgres") as url:
            settings = Settings(
                _env_file=None,  # type: ignore[call-arg]
                database_url=SecretStr(url),
                storage_url=self.storage.url,
                master_key=SecretStr((self.folder / "master-key").read_text()),
                path_roots=[self.folder],
            )
            migrations.upgrade(settings.sqlalchemy_url())
            engine = make_engine(settings)
            yield Database(engine), settings
            engine.dispose()

    def efface(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "api.cli", *arguments, "--home", str(self.folder)]
        return subprocess.run(command, capture_output=True, text=True, timeout=240)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def upload(database: Database, settings: Settings, storage: Storage, tenant: str, path: Path) -> str:
    summary = datasets.inspect(path, settings)
    stored = datasets.store(storage, tenant, path, settings)
    with database.transaction() as session:
        size = path.stat().st_size
        view = datasets.add(session, tenant_id=tenant, stored=stored, name="x", size_bytes=size, summary=summary)
    return view.id


def test_the_drill(home: Home, tmp_path: Path) -> None:
    archive = requests.archive(tmp_path / "up.zip", "horse")
    (home.folder / "clip").mkdir()
    with home.opened() as (database, settings):
        with database.transaction() as session:
            tenant = api_keys.tenant_named(session, "local").id
            request = requests.names_only(home.folder / "clip")
            job = submission.submit(session, tenant, request, settings).id
        kept, purged = (upload(database, settings, home.storage, tenant, archive) for _ in range(2))
        home.storage.put(f"{models.prefix(tenant, 'mdl_1')}/open_clip_config.json", b"{}")
        with database.transaction() as session:
            values: dict[str, object] = {"id": "mdl_1", "reference": f"storage:{models.prefix(tenant, 'mdl_1')}"}
            models.add(session, tenant_id=tenant, name="m", values=values)
            chain.extend(session)

    backup = tmp_path / "backup"
    made = home.efface("backup", str(backup))
    assert (made.returncode, made.stderr) == (0, ""), made.stderr
    assert "3 objects" in made.stdout and "master-key" in made.stdout
    assert stat.S_IMODE(backup.stat().st_mode) == 0o700
    again = home.efface("backup", str(backup))
    assert again.returncode == 2 and "not empty" in again.stderr

    with home.opened() as (database, settings):
        with database.transaction() as session:
            doomed = dataset_purge.begin_deletion(session, tenant, purged, settings)
            model = model_purge.begin(session, tenant, "mdl_1")
            ending.cancel(session, tenant, job)
        assert doomed is not None
        sweeper.purge(database, home.storage, doomed)
        sweeper.purge_model(database, home.storage, model)
    home.storage.put(f"tenants/{tenant}/jobs/{job}/later", b"x")

    refused = home.efface("restore", str(backup))
    assert refused.returncode == 1 and "1 jobs" in refused.stderr and "--replace" in refused.stderr
    done = home.efface("restore", str(backup), "--replace")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert "2 data sets and models" in done.stdout
    assert not (home.folder / "redis" / "appendonlydir").exists()

    with home.opened() as (database, _), database.transaction() as session:
        assert session.scalars(select(Job.state)).one() == "queued"  # as it was
        assert session.scalars(select(Dataset.id)).all() == [kept]
        assert session.get_one(Model, "mdl_1").deleted_at is not None
        with pytest.raises(NotFound):
            models.get(session, tenant, "mdl_1")
        purges = select(func.count()).where(AuditEntry.action.in_(("dataset.purged", "model.deleted")))
        assert session.scalar(purges) == 2
    assert [found.key for found in home.storage.list("tenants")] == [f"tenants/{tenant}/datasets/{kept}"]


def test_what_is_no_sound_backup_restores_nothing(home: Home, tmp_path: Path) -> None:
    with home.opened() as (database, _), database.transaction() as session:
        api_keys.tenant_named(session, "local")
    home.storage.put("tenants/t/x", b"1")
    backup = tmp_path / "backup"
    assert home.efface("backup", str(backup)).returncode == 0
    (backup / "objects" / "tenants" / "t" / "x").write_bytes(b"12")
    for folder, word in ((backup, "changed since"), (tmp_path, "no backup")):
        refused = home.efface("restore", str(folder))
        assert refused.returncode == 2 and word in refused.stderr and len(refused.stderr.splitlines()) == 1
    assert home.storage.get("tenants/t/x") == b"1"


def test_a_service_that_runs_is_backed_up_and_not_restored(
    home: Home, settings: Settings, database: Database, storage: Storage, tmp_path: Path
) -> None:
    with database.transaction() as session:
        api_keys.tenant_named(session, "runs")
    storage.put("tenants/t/x", b"1")
    url = settings.database_url.get_secret_value()
    home_file.write(home.folder, {"EFFACE_DATABASE_URL": url, "EFFACE_STORAGE_URL": settings.storage_url})
    with (home.folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = home.efface("backup", str(tmp_path / "backup"))
        assert made.returncode == 0 and "1 objects" in made.stdout, made.stderr
        refused = home.efface("restore", str(tmp_path / "backup"), "--replace")
    assert refused.returncode == 1 and "stop it first" in refused.stderr


def test_a_folder_that_is_no_home(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "api.cli", "backup", str(tmp_path / "b"), "--home", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "is no home of a service" in done.stderr
