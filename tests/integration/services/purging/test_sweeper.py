"""The sweeper: one thing that cannot be swept, whatever the reason, holds up no other; what no row knows is found."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from structlog.testing import capture_logs

from services.access import api_keys
from services.catalog import models
from services.purging import orphans, sweeper
from services.purging.orphans import Orphan
from shared import ids
from shared.errors import Unavailable
from shared.ports.object_storage import Storage
from shared.postgres.database import Database
from shared.postgres.tables import Tenant
from shared.settings import Settings
from tests.support.world import World


@pytest.fixture
def old_id(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Makes ids of long ago."""

    def make(prefix: str) -> str:
        with monkeypatch.context() as then:
            then.setattr("shared.ids.time.time_ns", lambda: 1_700_000_000_000_000_000)
            return ids.new_id(prefix)

    return make


class Moody(Storage):
    """A storage that fails on one key, with an error that nobody foresaw."""

    bad = ""

    def delete(self, prefix: str) -> int:
        if self.bad in prefix:
            raise ValueError("a fault of a library")
        return super().delete(prefix)


def found(database: Database, storage: Storage) -> dict[str, Orphan]:
    later = datetime.now(UTC) + timedelta(seconds=5)
    return {orphan.prefix: orphan for orphan in orphans.find(database, storage, before=later)}


def test_every_kind_of_orphan_is_found_and_nothing_else(
    database: Database,
    storage: Storage,
    tenant: str,
    submit: Callable[..., str],
    upload: Callable[..., str],
    old_id: Callable[[str], str],
) -> None:
    mine = f"tenants/{tenant}"
    job, dataset = submit(), upload("horse")
    with database.transaction() as session:
        values: dict[str, object] = {"id": ids.new_id("mdl"), "reference": "storage:x"}
        model = models.add(session, tenant_id=tenant, name="m", values=values).id
    kept = [f"{mine}/models/{model}/open_clip_config.json", f"{mine}/jobs/{job}/1/report.json"]
    lost = {
        f"{mine}/datasets/{old_id('ds')}": "dataset",
        f"{mine}/models/{old_id('mdl')}": "model",
        f"{mine}/jobs/{old_id('job')}": "job",
        f"{mine}/cache/evaluations/{'0' * 64}": "features",
        f"{mine}/cache/tensors": "samples",
        "tenants/tnt_nobody": "tenant",
        f"{mine}/datasets/x.txt": "foreign",
        f"{mine}/notes/readme": "foreign",
    }
    below = {"model": "/a", "job": "/1/report.json", "features": "/a", "samples": "/a", "tenant": "/models/a/b"}
    for prefix, kind in lost.items():
        storage.put(prefix + below.get(kind, ""), b"12345")
    for key in kept:
        storage.put(key, b"x")

    orphaned = found(database, storage)
    assert {prefix: orphan.kind for prefix, orphan in orphaned.items()} == lost
    assert all((orphan.objects, orphan.bytes) == (1, 5) for orphan in orphaned.values())
    assert {o.kind for o in orphans.find(database, storage)} == {"dataset", "model", "job", "foreign"}  # by their ids
    with capture_logs() as logs:
        assert sweeper.sweep_abandoned(database, storage) == 3
    assert {entry["key"] for entry in logs if entry["event"] == "sweep.foreign_object"} == {
        prefix for prefix, kind in lost.items() if kind == "foreign"
    }
    assert {o.kind for o in found(database, storage).values()} == {"features", "samples", "tenant", "foreign"}
    assert all(storage.find(key) for key in [*kept, f"{mine}/datasets/{dataset}"])


def test_a_foreign_object_does_not_stop_later_tenants(
    database: Database, storage: Storage, old_id: Callable[[str], str]
) -> None:
    with database.transaction() as session:
        first, last = (api_keys.tenant_named(session, name).id for name in ("a", "b"))
    for tenant in (first, last):
        for name in ("x.txt", "ds_", "ds_ILLEGAL", old_id("ds")):
            storage.put(f"tenants/{tenant}/datasets/{name}", b"x")
    assert sweeper.sweep_abandoned(database, storage) == 2
    assert len(storage.list("tenants")) == 6


def test_an_upload_that_has_not_committed_yet_is_no_orphan(database: Database, storage: Storage, tenant: str) -> None:
    for section, prefix in (("datasets", "ds"), ("models", "mdl")):
        name = f"tenants/{tenant}/{section}/{ids.new_id(prefix)}"
        storage.put(name if prefix == "ds" else f"{name}/open_clip_config.json", b"x")
    assert list(orphans.find(database, storage)) == []


def test_many_ids_are_asked_for_in_batches(
    database: Database, storage: Storage, tenant: str, monkeypatch: pytest.MonkeyPatch, old_id: Callable[[str], str]
) -> None:
    monkeypatch.setattr(orphans, "BATCH", 3)
    for _ in range(7):
        storage.put(f"tenants/{tenant}/datasets/{old_id('ds')}", b"x")
    assert len(list(orphans.find(database, storage))) == 7


def test_an_error_that_nobody_foresaw_is_logged_with_its_key_and_holds_up_no_other(
    database: Database, storage: Storage, settings: Settings, tenant: str, submit: Callable[..., str]
) -> None:
    worlds = [World(database, tenant, submit()) for _ in range(3)]
    moody = Moody(storage.url)
    moody.bad = worlds[0].job
    for world in worlds:
        world.cancel()
        storage.put(f"tenants/{tenant}/jobs/{world.job}/checkpoints/1", b"x")
    with capture_logs() as logs, pytest.raises(Unavailable, match=f"1 could not be swept.*{moody.bad}"):
        sweeper.sweep_jobs(database, moody)
    assert [entry["key"] for entry in logs if entry["event"] == "sweep.failed"] == [
        f"tenants/{tenant}/jobs/{moody.bad}"
    ]
    assert [o.key.split("/")[3] for o in storage.list(f"tenants/{tenant}/jobs")] == [moody.bad]
    with pytest.raises(Unavailable):
        sweeper.sweep(database, moody, settings)


def test_more_that_fail_than_a_batch_holds_do_not_starve_the_rest(
    database: Database, storage: Storage, tenant: str, submit: Callable[..., str]
) -> None:
    worlds = [World(database, tenant, submit()) for _ in range(23)]
    for world in worlds:
        world.cancel()
        storage.put(f"tenants/{tenant}/jobs/{world.job}/checkpoints/1", b"x")
    last = worlds[-1].job

    class Picky(Moody):
        def delete(self, prefix: str) -> int:
            return Storage.delete(self, prefix) if last in prefix else super().delete(prefix)

    picky = Picky(storage.url)
    picky.bad = "tenants"
    with pytest.raises(Unavailable, match="22 could not"):
        sweeper.sweep_jobs(database, picky)
    assert storage.list(f"tenants/{tenant}/jobs/{last}") == []


def test_a_tenant_without_rows_is_known(database: Database, storage: Storage) -> None:
    with database.transaction() as session:
        session.add(Tenant(id="tnt_new", name="new"))
    storage.put("tenants/tnt_new/cache/tensors/a", b"x")
    assert [orphan.kind for orphan in found(database, storage).values()] == ["samples"]
