"""`efface sweep` and `efface purge`, as processes."""

import os
import subprocess
import sys

import pytest

from services.access import api_keys
from services.catalog import models
from services.purging import models as model_purge
from services.purging import sweeper
from shared import ids


@pytest.fixture
def efface(settings):
    variables = {
        "EFFACE_DATABASE_URL": settings.database_url.get_secret_value(),
        "EFFACE_STORAGE_URL": settings.storage_url,
    }

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "api.cli", *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=os.environ | variables, timeout=120)

    return run


@pytest.fixture
def tenant(database) -> str:
    with database.transaction() as session:
        return api_keys.tenant_named(session, "alice").id


def test_a_dry_run_names_what_would_go_and_deletes_nothing(efface, tenant, storage, monkeypatch):
    with monkeypatch.context() as then:
        then.setattr("shared.ids.time.time_ns", lambda: 1_700_000_000_000_000_000)
        lost = f"tenants/{tenant}/models/{ids.new_id('mdl')}"
    storage.put(f"{lost}/open_clip_config.json", b"{}")
    storage.put(f"tenants/{tenant}/datasets/readme.txt", b"mine")
    looked = efface("sweep", "--dry-run")
    assert (looked.returncode, looked.stderr) == (0, "")
    assert f"{lost}: files without a model (1 objects, 2 bytes)" in looked.stdout
    assert looked.stdout.splitlines()[-1] == "1 things would be deleted; 1 foreign objects are left alone."
    assert len(storage.list("tenants")) == 2
    done = efface("sweep")
    assert done.returncode == 0 and "1 things were deleted" in done.stdout
    assert [o.key for o in storage.list("tenants")] == [f"tenants/{tenant}/datasets/readme.txt"]


def test_the_list_of_purges_names_models_and_finds_them_again(efface, tenant, storage, database, tmp_path):
    prefix = models.prefix(tenant, "mdl_1")
    storage.put(f"{prefix}/open_clip_config.json", b"{}")
    with database.transaction() as session:
        models.add(session, tenant_id=tenant, name="m", values={"id": "mdl_1", "reference": f"storage:{prefix}"})
        doomed = model_purge.begin(session, tenant, "mdl_1")
    sweeper.purge_model(database, storage, doomed)
    listed = efface("purge", "list").stdout
    assert f'"prefix": "{prefix}"' in listed
    assert efface("purge", "pending").returncode == 0
    storage.put(f"{prefix}/open_clip_config.json", b"{}")
    kept = tmp_path / "purged.jsonl"
    kept.write_text(listed)
    assert efface("purge", "pending", "--from", str(kept)).returncode == 1
    assert "1 data sets and models" in efface("purge", "again", "--from", str(kept)).stdout
    assert storage.list(prefix) == []


def test_a_database_that_is_not_there_is_one_line_that_helps(efface):
    command = [sys.executable, "-m", "api.cli", "keys", "list"]
    nowhere = os.environ | {"EFFACE_DATABASE_URL": "postgresql://x:secret@127.0.0.1:9/efface"}
    done = subprocess.run(command, capture_output=True, text=True, env=nowhere, timeout=120)
    assert (done.returncode, done.stdout) == (1, "") and len(done.stderr.splitlines()) == 1
    assert "--home" in done.stderr and "secret" not in done.stderr
