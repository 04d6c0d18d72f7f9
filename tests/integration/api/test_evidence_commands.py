"""`efface audit` and `efface purge` on a real database: what they print and how they exit."""

import json
from typing import NamedTuple

import pytest
from sqlalchemy import text

from api.cli import main
from services.access import api_keys
from services.audit_log import chain
from services.catalog import datasets
from services.jobs import ending, submission
from services.purging import sweeper
from shared.settings import get_settings
from shared.states import Scope
from tests.support import requests
from tests.support.parts import APPEND_ONLY


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def efface(settings, database, monkeypatch, capsys):
    """Runs a command on the test's database and storage, in this process."""
    variables = {
        "EFFACE_DATABASE_URL": settings.database_url.get_secret_value(),
        "EFFACE_STORAGE_URL": settings.storage_url,
        "EFFACE_MASTER_KEY": settings.master_key.get_secret_value(),
    }
    monkeypatch.setattr("shared.telemetry.configure_logging", lambda settings: None)  # that of the other tests stays

    def run(*arguments, **changes):
        capsys.readouterr()
        with monkeypatch.context() as patch:
            for name, value in (variables | changes).items():
                patch.setenv(name, value)
            patch.setattr("sys.argv", ["efface", *map(str, arguments)])
            get_settings.cache_clear()
            with pytest.raises(SystemExit) as ended:
                main()
        get_settings.cache_clear()
        return Done(ended.value.code or 0, *capsys.readouterr())

    return run


def make_entries(database) -> None:
    with database.transaction() as session:
        for name in ("one", "two", "three"):
            api_keys.create(session, tenant="tests", name=name, scopes=[Scope.ADMIN])
    with database.transaction() as session:
        chain.extend(session)


def cut_off(database) -> None:
    with database.transaction() as session:
        for table in APPEND_ONLY:
            session.execute(text(f"ALTER TABLE {table} DISABLE TRIGGER USER"))
        for statement in ("audit_heads", "audit_chain WHERE seq > 1", "audit_log WHERE id > 1"):
            session.execute(text(f"DELETE FROM {statement}"))
        for table in APPEND_ONLY:
            for name in ("rows", "truncate"):
                session.execute(text(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {table}_{name}"))


def test_a_whole_log_exits_0_and_one_that_was_cut_off_4(efface, database, tmp_path):
    key = tmp_path / "key.pem"
    (tmp_path / "public.pem").write_text(efface("audit", "new-key", key).stdout)
    assert efface("audit", "new-key", key).returncode == 1  # never replaced
    make_entries(database)
    head = efface("audit", "head", EFFACE_AUDIT_KEY_FILE=str(key))
    (tmp_path / "head.json").write_text(head.stdout)
    assert json.loads(head.stdout)["statement"]["seq"] == 3

    checked = ("audit", "verify", "--key", tmp_path / "public.pem", "--head", tmp_path / "head.json")
    whole = efface(*checked)
    assert (whole.returncode, whole.stdout.startswith("The audit log is whole: 3 entries")) == (0, True)

    cut_off(database)
    broken = efface(*checked)
    assert broken.returncode == 4
    assert "its end was cut off" in broken.stdout
    unsigned = efface("audit", "verify")
    assert (unsigned.returncode, "heads were not checked" in unsigned.stdout) == (4, True)
    assert unsigned.stdout.count("the log has no entry 'key.created' of it") == 2  # the rows are still there


def test_a_log_without_a_head_is_refused_where_there_is_a_key(efface, database, tmp_path):
    key = tmp_path / "key.pem"
    efface("audit", "new-key", key)
    make_entries(database)
    unsigned = efface("audit", "verify", EFFACE_AUDIT_KEY_FILE=str(key))
    assert (unsigned.returncode, "no signed head" in unsigned.stdout) == (4, True)
    efface("audit", "head", EFFACE_AUDIT_KEY_FILE=str(key))
    assert efface("audit", "verify", EFFACE_AUDIT_KEY_FILE=str(key)).returncode == 0


def test_bad_files_are_one_line(efface, tmp_path):
    (tmp_path / "no.pem").write_text("no key")
    for arguments in (("--key", tmp_path / "no.pem"), ("--head", tmp_path / "no.pem")):
        done = efface("audit", "verify", *arguments)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1
    done = efface("purge", "pending", "--from", tmp_path / "no.pem")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)


def test_the_record_of_processing(efface, database):
    make_entries(database)
    record = json.loads(efface("audit", "record", EFFACE_PROCESSOR_NAME="Forget Ltd").stdout)
    assert (record["basis"], record["processor"]["name"]) == ("GDPR Article 30(2)", "Forget Ltd")
    assert [controller["name"] for controller in record["controllers"]] == ["tests"]


def test_what_a_backup_brings_back_is_purged_again(efface, database, storage, settings, tmp_path):
    with database.transaction() as session:
        tenant = api_keys.tenant_named(session, "tests").id
    path = requests.archive(tmp_path / "up.zip", "horse")
    stored = datasets.store(storage, tenant, path, settings)
    summary = datasets.inspect(path, settings)
    with database.transaction() as session:
        datasets.add(
            session, tenant_id=tenant, stored=stored, name="up", size_bytes=1, summary=summary, purge_after_job=True
        )
    settings = settings.model_copy(update={"path_roots": [tmp_path]})
    (tmp_path / "clip").mkdir()
    data = {"evaluation": [{"name": "own", "dataset": stored.dataset_id}]}
    with database.transaction() as session:
        request = requests.names_only(tmp_path / "clip", data=data)
        job = submission.submit(session, tenant, request, settings).id
        ending.cancel(session, tenant, job)
    assert sweeper.sweep_datasets(database, storage, settings) == 1

    line = {"dataset": stored.dataset_id, "tenant": tenant}
    assert json.loads(efface("purge", "list").stdout) == line
    assert (efface("purge", "pending").returncode, efface("purge", "pending").stdout) == (0, "")
    storage.put(stored.key, b"from a backup")
    pending = efface("purge", "pending")
    assert (pending.returncode, json.loads(pending.stdout)) == (1, line)
    assert efface("purge", "again").stdout.splitlines()[-1].startswith("1 data sets and models were there again")
    assert efface("purge", "pending").returncode == 0
    assert storage.find(stored.key) == []


def test_master_keys_are_changed_without_a_new_upload(efface, database, storage, settings, tmp_path):
    with database.transaction() as session:
        tenant = api_keys.tenant_named(session, "tests").id
    path = requests.archive(tmp_path / "up.zip", "horse")
    stored = datasets.store(storage, tenant, path, settings)
    with database.transaction() as session:
        summary = datasets.inspect(path, settings)
        datasets.add(session, tenant_id=tenant, stored=stored, name="up", size_bytes=1, summary=summary)
    new = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
    both = f"{new},{settings.master_key.get_secret_value()}"
    assert efface("keys", "rewrap", EFFACE_MASTER_KEY=both).stdout.startswith("1 data keys and 0 webhook secrets")
    assert efface("keys", "rewrap", EFFACE_MASTER_KEY=new).returncode == 0
    assert efface("keys", "rewrap").returncode == 1  # the old one opens nothing any more
