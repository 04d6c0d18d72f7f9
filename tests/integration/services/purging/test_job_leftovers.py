"""What is purged when, what the receipts say, and that nothing is purged which a job may still need."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select, update

from services.catalog import datasets
from services.jobs import lifecycle, submission
from services.purging import datasets as dataset_purge
from services.purging import job_leftovers, restored_backups, sweeper
from shared.errors import Conflict, InvalidRequest, NotFound, Unavailable
from shared.ids import new_id
from shared.ports.object_storage import Storage
from shared.postgres.database import Database
from shared.postgres.tables import AuditEntry, Dataset, Job, JobPurge
from shared.schemas.job import JobError
from shared.schemas.purge import PurgeReceipt
from shared.schemas.spec import cached_evaluations
from shared.settings import Settings
from tests.support import requests
from tests.support.world import World, passed

LOST = JobError(code="worker_lost", message="it was unplugged")


class Keeper:
    """A tenant's data sets, the jobs that use them, and the sweeper."""

    def __init__(self, database: Database, storage: Storage, settings: Settings, tenant: str, clip: Path) -> None:
        self.database, self.storage, self.settings, self.tenant, self.clip = database, storage, settings, tenant, clip

    def submit(self, **data: object) -> World:
        """Submit a subgroup job on these data sets."""
        request = requests.subgroup(self.clip, **data)
        with self.database.transaction() as session:
            return World(self.database, self.tenant, submission.submit(session, self.tenant, request, self.settings).id)

    def sweep(self) -> int:
        sweeper.sweep_jobs(self.database, self.storage)
        return sweeper.sweep_datasets(self.database, self.storage, self.settings)

    def receipt(self, world: World) -> PurgeReceipt:
        with self.database.transaction() as session:
            return job_leftovers.receipt(session, self.tenant, world.job)

    def objects(self) -> list[str]:
        """Return the ids of the archives in the storage."""
        return [o.key.rsplit("/", 1)[1] for o in self.storage.list(f"tenants/{self.tenant}/datasets")]

    def age(self, hours: float) -> None:
        """Let every data set and every end of a job be so old."""
        with self.database.transaction() as session:
            past = func.now() - timedelta(hours=hours)
            session.execute(update(Dataset).values(created_at=past))
            session.execute(update(Job).where(Job.finished_at.is_not(None)).values(finished_at=past))


@pytest.fixture
def keeper(database: Database, storage: Storage, settings: Settings, tenant: str, clip: Path) -> Keeper:
    return Keeper(database, storage, settings, tenant, clip)


END: dict[str, Callable[[World], object]] = {
    "succeeded": lambda world: world.claim() and world.do(lifecycle.complete, 1, passed(world, 1)),
    "failed": lambda world: world.claim() and world.do(lifecycle.fail, 1, LOST),
    "cancelled": lambda world: world.cancel(),
    "given up": lambda world: [world.claim() and world.do(lifecycle.give_back, attempt, LOST) for attempt in (1, 2, 3)],
}


@pytest.mark.parametrize("end", END.values(), ids=END)
def test_whatever_the_end_what_was_to_be_forgotten_is_gone(keeper: Keeper, upload: Callable[..., str], end) -> None:
    forget, retain = upload("horse"), upload("horse", "dog")
    sealed = keeper.storage.get(f"tenants/{keeper.tenant}/datasets/{forget}")
    world = keeper.submit(forget=forget, retain=retain)
    keeper.storage.put(f"tenants/{keeper.tenant}/jobs/{world.job}/cache/evaluations/x.json", b"[1]")
    assert keeper.sweep() == 0
    end(world)
    assert world.view().state.final
    assert keeper.sweep() == 1

    assert keeper.objects() == [retain]
    receipt = keeper.receipt(world)
    gone, kept = sorted(receipt.datasets, key=lambda entry: entry.dataset != forget)
    (stored,) = gone.objects
    digest = requests.sha256(sealed)
    assert (stored.key, stored.bytes, stored.sha256) == (
        f"tenants/{keeper.tenant}/datasets/{forget}",
        len(sealed),
        digest,
    )
    assert (gone.state, gone.reason, gone.versions, kept.state) == ("purged", "job_ended", "none", "kept")
    assert gone.key_destroyed_at is not None and gone.listing_empty_at is not None
    assert gone.key_destroyed_at <= gone.listing_empty_at
    assert [(o.key.rsplit("/", 1)[1], o.bytes) for o in receipt.leftovers] == [("x.json", 3)]
    assert receipt.complete


def test_a_job_that_is_given_back_keeps_its_data(keeper: Keeper, upload: Callable[..., str]) -> None:
    forget = upload("horse")
    world = keeper.submit(forget=forget, retain=upload("horse", "dog"))
    for attempt in (1, 2):
        claim = world.claim()
        assert claim is not None and claim.spec.data.forget is not None and claim.spec.data.forget.data_key
        world.do(lifecycle.give_back, attempt, LOST)
        keeper.age(10_000)
        assert keeper.sweep() == 0
        with pytest.raises(Conflict):
            keeper.receipt(world)
    assert forget in keeper.objects()


def test_the_key_is_in_the_claim_and_nowhere_else(keeper: Keeper, upload: Callable[..., str]) -> None:
    world = keeper.submit(forget=upload("horse"), retain=upload("horse", "dog"))
    claim = world.claim()
    assert claim is not None and all(source.data_key for source in claim.spec.data.all())
    with keeper.database.transaction() as session:
        stored = session.scalars(select(Job.spec)).one()
    assert {part["data_key"] for part in stored["data"].values() if part} == {None}


def test_with_two_jobs_it_goes_with_the_last(keeper: Keeper, upload: Callable[..., str]) -> None:
    forget, retain = upload("horse"), upload("horse", "dog")
    first, second = (keeper.submit(forget=forget, retain=retain) for _ in range(2))
    first.cancel()
    assert keeper.sweep() == 0
    assert not keeper.receipt(first).complete
    assert {entry.state for entry in keeper.receipt(first).datasets} == {"waiting", "kept"}
    second.cancel()
    assert keeper.sweep() == 1
    assert keeper.receipt(first).complete and keeper.receipt(second).complete
    assert keeper.receipt(first).datasets == keeper.receipt(second).datasets


def test_images_of_earlier_erasures_go_with_the_job_unless_their_owner_keeps_them(
    keeper: Keeper, upload: Callable[..., str]
) -> None:
    """They are images of what was to be forgotten, like those in `data.forget`."""
    once, kept = upload("cat"), upload("dog", purge_after_job=False)
    sets = [
        {"name": name, "dataset": dataset, "labels": ["cat", "dog"]} for name, dataset in (("a", once), ("b", kept))
    ]
    data = {"forget": upload("horse"), "retain": upload("horse", "dog", purge_after_job=False), "earlier": sets}
    world = keeper.submit(forget="", retain="", data=data)
    world.cancel()
    keeper.sweep()
    assert sorted(keeper.objects()) == sorted([kept, data["retain"]])
    states = {entry.dataset: entry.state for entry in keeper.receipt(world).datasets}
    assert (states[once], states[kept]) == ("purged", "kept")


def test_what_is_purged_cannot_be_used_or_seen(keeper: Keeper, upload: Callable[..., str], settings: Settings) -> None:
    forget, retain = upload("horse"), upload("horse", "dog")
    keeper.submit(forget=forget, retain=retain).cancel()
    with keeper.database.transaction() as session:  # the key is destroyed, the object is still there
        assert dataset_purge.begin(session, forget, settings) is not None
    with pytest.raises(InvalidRequest, match="/data/forget: there is no data set"):
        keeper.submit(forget=forget, retain=retain)
    with keeper.database.transaction() as session:
        with pytest.raises(NotFound):
            datasets.get(session, keeper.tenant, forget)
        assert [d.id for d in datasets.list_page(session, keeper.tenant).data] == [retain]
        assert session.get_one(Dataset, forget).data_key is None


def test_a_data_set_that_a_submission_holds_is_not_purged(
    keeper: Keeper, upload: Callable[..., str], settings: Settings
) -> None:
    forget, retain = upload("horse"), upload("horse", "dog")
    keeper.submit(forget=forget, retain=retain).cancel()
    request = requests.subgroup(keeper.clip, forget=forget, retain=retain)
    with keeper.database.transaction() as submitting:
        submission.submit(submitting, keeper.tenant, request, settings)
        assert keeper.sweep() == 0
    assert keeper.sweep() == 0
    assert forget in keeper.objects()


@pytest.mark.parametrize(("wish", "left"), [(True, []), (False, ["forget", "retain"]), (None, ["retain"])])
def test_the_owner_may_say_otherwise(keeper: Keeper, upload: Callable[..., str], wish, left) -> None:
    ids = {"forget": upload("horse", purge_after_job=wish)}
    ids["retain"] = upload("horse", "dog", purge_after_job=wish)
    keeper.submit(**ids).cancel()
    while keeper.sweep():
        pass
    assert keeper.objects() == sorted(ids[name] for name in left)


@pytest.mark.parametrize(("wish", "hours", "gone"), [(None, 23, 0), (None, 25, 1), (True, 25, 1), (False, 25, 0)])
def test_an_upload_that_no_job_uses_is_overdue_after_a_day(
    keeper: Keeper, upload: Callable[..., str], wish, hours, gone
) -> None:
    upload("horse", purge_after_job=wish)
    keeper.age(hours)
    assert keeper.sweep() == gone


@pytest.mark.parametrize(("hours", "gone"), [(7 * 24 - 1, 0), (7 * 24 + 1, 1)])
def test_other_data_sets_live_for_the_retention_period(
    keeper: Keeper, upload: Callable[..., str], hours: float, gone: int
) -> None:
    retain = upload("horse", "dog")
    keeper.submit(forget=upload("horse"), retain=retain).cancel()
    keeper.sweep()
    with keeper.database.transaction() as session:
        digest = session.get_one(Dataset, retain).digest
    cached = f"{cached_evaluations(keeper.tenant, digest)}/x.json"
    keeper.storage.put(cached, b"[1]")
    keeper.age(hours)
    assert keeper.sweep() == gone
    assert (retain in keeper.objects(), bool(keeper.storage.find(cached))) == (not gone, not gone)


def test_a_purge_that_died_is_taken_up_again(keeper: Keeper, upload: Callable[..., str], settings: Settings) -> None:
    forget = upload("horse")
    world = keeper.submit(forget=forget, retain=upload("horse", "dog"))
    world.cancel()
    with keeper.database.transaction() as session:
        begun = dataset_purge.begin(session, forget, settings)
    assert begun is not None
    assert keeper.sweep() == 1
    (gone,) = [entry for entry in keeper.receipt(world).datasets if entry.dataset == forget]
    assert gone.key_destroyed_at == begun.key_destroyed_at
    assert len(gone.objects) == 1


def test_a_storage_that_keeps_what_it_should_delete_gets_no_receipt(
    keeper: Keeper, upload: Callable[..., str], tmp_path: Path
) -> None:
    forget = upload("horse")
    world = keeper.submit(forget=forget, retain=upload("horse", "dog"))
    world.cancel()
    deaf = Deaf(keeper.storage.url)
    with pytest.raises(Unavailable, match="still lists"):
        sweeper.sweep_datasets(keeper.database, deaf, keeper.settings)
    assert [entry.state for entry in keeper.receipt(world).datasets if entry.dataset == forget] == ["waiting"]
    assert keeper.sweep() == 1
    assert keeper.receipt(world).complete


class Deaf(Storage):
    """A storage that answers a deletion and does nothing, of one object or of all."""

    held = ""

    def delete(self, prefix: str) -> int:
        return 0 if self.held in prefix else super().delete(prefix)


def test_what_is_written_after_the_end_is_found_two_leases_later(
    keeper: Keeper, upload: Callable[..., str], settings: Settings, storage: Storage, database: Database
) -> None:
    world, quiet = (keeper.submit(forget=upload("horse"), retain=upload("dog", "horse")) for _ in range(2))
    for each in (world, quiet):
        each.cancel()
    keeper.sweep()
    late = f"tenants/{keeper.tenant}/jobs/{world.job}/checkpoints/forgetting"
    storage.put(late, b"of an upload that was under way")
    assert sweeper.sweep_stragglers(database, storage, settings) == 0  # somebody may still be writing
    with database.transaction() as session:
        past = timedelta(seconds=2 * settings.lease_seconds)
        session.execute(update(Job).values(finished_at=Job.finished_at - past))
        session.execute(update(JobPurge).values(verified_at=JobPurge.verified_at - past))
    assert sweeper.sweep_stragglers(database, storage, settings) == 2
    assert storage.find(late) == []
    assert [found.key for found in keeper.receipt(world).leftovers] == [late]
    assert keeper.receipt(quiet).leftovers == ()
    assert sweeper.sweep_stragglers(database, storage, settings) == 0


def test_one_that_cannot_be_deleted_holds_up_no_other(keeper: Keeper, upload: Callable[..., str]) -> None:
    stuck, free = upload("horse"), upload("horse")
    for forget in (stuck, free):
        keeper.submit(forget=forget, retain=upload("horse", "dog")).cancel()
    deaf = Deaf(keeper.storage.url)
    deaf.held = stuck
    with pytest.raises(Unavailable, match=stuck):
        sweeper.sweep_datasets(keeper.database, deaf, keeper.settings)
    assert stuck in keeper.objects() and free not in keeper.objects()


def test_archives_without_a_row_go_once_no_upload_can_be_at_them(
    keeper: Keeper, upload: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = upload("horse")
    folder = f"tenants/{keeper.tenant}/datasets"
    keeper.storage.put(f"{folder}/{new_id('ds')}", b"young")
    with monkeypatch.context() as yesterday:
        yesterday.setattr("shared.ids.time.time_ns", lambda: 1_700_000_000_000_000_000)
        old = new_id("ds")
    keeper.storage.put(f"{folder}/{old}", b"old")
    assert sweeper.sweep_abandoned(keeper.database, keeper.storage) == 1
    assert known in keeper.objects() and old not in keeper.objects() and len(keeper.objects()) == 2


def test_a_purge_is_in_the_audit_log(keeper: Keeper, upload: Callable[..., str]) -> None:
    forget = upload("horse")
    keeper.submit(forget=forget, retain=upload("horse", "dog")).cancel()
    keeper.sweep()
    with keeper.database.transaction() as session:
        (entry,) = session.scalars(select(AuditEntry).where(AuditEntry.action == "dataset.purged"))
    assert (entry.subject, entry.detail["reason"], entry.detail["objects"]) == (forget, "job_ended", 1)


class TestAfterARestore:
    """A backup brings back what was purged; the list knows."""

    @pytest.fixture
    def restored(self, keeper: Keeper, upload: Callable[..., str]) -> tuple[World, str]:
        """A purged data set whose row, key and object are all back, as is the job that was to use it."""
        forget, retain = upload("horse"), upload("horse", "dog")
        world = keeper.submit(forget=forget, retain=retain)
        key = f"tenants/{keeper.tenant}/datasets/{forget}"
        sealed = keeper.storage.get(key)
        with keeper.database.transaction() as session:
            row = session.get_one(Dataset, forget)
            values = {column.name: getattr(row, column.name) for column in Dataset.__table__.columns}
        world.cancel()
        keeper.sweep()
        keeper.storage.put(key, sealed)
        with keeper.database.transaction() as session:
            session.add(Dataset(**values))
        keeper.storage.put(f"tenants/{keeper.tenant}/jobs/{world.job}/checkpoints/1", b"back")
        return world, forget

    def listed(self, keeper: Keeper) -> set[restored_backups.Purged]:
        with keeper.database.transaction() as session:
            return restored_backups.purged(session, keeper.storage)

    @pytest.mark.parametrize("lost", ["nothing", "receipts"])
    def test_it_is_purged_again(self, keeper: Keeper, restored: tuple[World, str], lost: str) -> None:
        world, forget = restored
        if lost == "receipts":  # Postgres is older than the purge; the storage still knows
            with keeper.database.transaction() as session:
                session.execute(dataset_purge.DatasetPurge.__table__.delete())
        listed = self.listed(keeper)
        with keeper.database.transaction() as session:
            assert [entry.id for entry in restored_backups.pending(session, keeper.storage, listed)] == [forget]
        assert restored_backups.purge_again(keeper.database, keeper.storage, keeper.settings, listed) == 1
        assert restored_backups.purge_again(keeper.database, keeper.storage, keeper.settings, listed) == 0
        assert forget not in keeper.objects()
        receipt = keeper.receipt(world)
        (gone,) = [entry for entry in receipt.datasets if entry.dataset == forget]
        assert len(gone.objects) == (1 if lost == "receipts" else 2)
        assert [found.key.rsplit("/", 2)[1:] for found in receipt.leftovers] == [["checkpoints", "1"]]
        assert receipt.complete

    def test_the_list_can_be_kept_elsewhere(self, keeper: Keeper, restored: tuple[World, str]) -> None:
        _, forget = restored
        line = f'{{"dataset": "{forget}", "tenant": "{keeper.tenant}"}}\n'.encode()
        keeper.storage.delete(dataset_purge.LIST_PREFIX)
        with keeper.database.transaction() as session:
            session.execute(dataset_purge.DatasetPurge.__table__.delete())
        assert self.listed(keeper) == set()
        assert (
            restored_backups.purge_again(
                keeper.database, keeper.storage, keeper.settings, restored_backups.parse([line])
            )
            == 1
        )
        assert forget not in keeper.objects()

    @pytest.mark.parametrize("line", [b"ds_1", b"[]", b'{"dataset": "ds_1"}'])
    def test_a_list_that_is_none_is_refused(self, line: bytes) -> None:
        with pytest.raises(InvalidRequest, match="line 1"):
            restored_backups.parse([line])


def test_receipts_are_their_tenants_own(keeper: Keeper, upload: Callable[..., str], stranger: str) -> None:
    world = keeper.submit(forget=upload("horse"), retain=upload("horse", "dog"))
    world.cancel()
    with keeper.database.transaction() as session, pytest.raises(NotFound):
        job_leftovers.receipt(session, stranger, world.job)
