"""What can be made can be deleted: models, data sets, reports and quarantined weights; what is still needed cannot."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select, update

from services.access import api_keys
from services.catalog import models
from services.jobs import data_used, lifecycle, queries, submission, weight_downloads
from services.purging import datasets, job_leftovers, restored_backups, sweeper
from services.purging import models as model_purge
from shared.errors import Conflict, Gone, InvalidRequest, NotFound
from shared.ports.object_storage import Storage
from shared.postgres.database import Database
from shared.postgres.tables import AuditEntry, Job, Model
from shared.postgres.tables import ModelPurge as ModelPurgeRow
from shared.schemas.job import JobError
from shared.schemas.purge import ModelPurge
from shared.schemas.request import ErasureRequest
from shared.schemas.result import ArtifactRecord, PipelineResult
from shared.settings import Settings
from tests.support import requests
from tests.support.world import World

WEIGHTS = b"not weights, but as long as some"


class Owner:
    """A tenant that makes and deletes things."""

    def __init__(self, database: Database, storage: Storage, settings: Settings, tenant: str) -> None:
        self.database, self.storage, self.settings, self.tenant = database, storage, settings, tenant

    def model(self, name: str = "m", parent: str | None = None) -> str:
        """Add an uploaded model."""
        model_id = f"mdl_{name}"
        prefix = models.prefix(self.tenant, model_id)
        self.storage.put(f"{prefix}/open_clip_model.safetensors", WEIGHTS)
        values: dict[str, object] = {"id": model_id, "reference": f"storage:{prefix}", "size_bytes": len(WEIGHTS)}
        with self.database.transaction() as session:
            models.add(session, tenant_id=self.tenant, name=name, values=values | {"parent_id": parent})
        return model_id

    def submit(self, model_id: str, **changes: object) -> World:
        body = {
            "model": {"id": model_id},
            "target": {"type": "class", "class": "horse", "labels": ["horse", "dog"]},
            "method": {"name": "synthetic"},
        }
        request = ErasureRequest.model_validate(body | changes)
        with self.database.transaction() as session:
            return World(self.database, self.tenant, submission.submit(session, self.tenant, request, self.settings).id)

    def end(self, world: World, *, passed: bool) -> None:
        """Let a job end with a report and weights, published or quarantined."""
        assert world.claim() is not None
        place = "model" if passed else "quarantine"
        records = []
        for name in ("report.json", "report.html", f"{place}/open_clip_model.safetensors"):
            key = f"tenants/{self.tenant}/jobs/{world.job}/1/{name}"
            size = self.storage.put(key, WEIGHTS)
            records.append(ArtifactRecord(name=name, key=key, sha256="ab", size_bytes=size))
        result = PipelineResult(
            verdict="passed" if passed else "failed",
            error=None if passed else JobError(code="thresholds_not_met", message="too much is left"),
            artifacts=tuple(records),
            architecture="ViT",
            model_digest="ab",
        )
        assert world.do(lifecycle.complete, 1, result)

    def delete(self, model_id: str) -> ModelPurge:
        with self.database.transaction() as session:
            doomed = model_purge.begin(session, self.tenant, model_id)
        return sweeper.purge_model(self.database, self.storage, doomed)

    def objects(self, below: str = "") -> list[str]:
        return [found.key for found in self.storage.list(f"tenants/{self.tenant}{below}")]

    def audited(self, action: str) -> list[AuditEntry]:
        with self.database.transaction() as session:
            return list(session.scalars(select(AuditEntry).where(AuditEntry.action == action)))

    def age(self, days: float) -> None:
        with self.database.transaction() as session:
            past = func.now() - timedelta(days=days)
            session.execute(update(Job).where(Job.finished_at.is_not(None)).values(finished_at=past))


@pytest.fixture
def owner(database: Database, storage: Storage, settings: Settings, tenant: str) -> Owner:
    return Owner(database, storage, settings, tenant)


def test_a_model_goes_with_its_files_and_leaves_a_receipt(owner: Owner) -> None:
    parent = owner.model("parent")
    child = owner.model("child", parent=parent)
    receipt = owner.delete(parent)

    assert [(found.key.rsplit("/", 2)[1], found.bytes) for found in receipt.objects] == [(parent, len(WEIGHTS))]
    assert (receipt.model, receipt.children, receipt.versions) == (parent, (child,), "none")
    assert receipt.listing_empty_at is not None and receipt.deleted_at <= receipt.listing_empty_at
    assert owner.objects("/models") == [f"{models.prefix(owner.tenant, child)}/open_clip_model.safetensors"]
    with owner.database.transaction() as session:
        assert models.get(session, owner.tenant, child).parent == parent
        assert [m.id for m in models.list_page(session, owner.tenant).data] == [child]
        with pytest.raises(NotFound):
            models.get(session, owner.tenant, parent)
        assert session.get_one(Model, parent).size_bytes is None  # it takes no room any more
    assert owner.delete(parent).objects == receipt.objects
    assert [entry.subject for entry in owner.audited("model.deleted")] == [parent]


def test_a_model_that_is_needed_is_not_deleted_and_what_needs_it_is_named(owner: Owner) -> None:
    edited, compared = owner.model("edited"), owner.model("compared")
    first = owner.submit(edited, audit={"reference": {"id": compared}})
    running = owner.submit(edited)
    running.claim()
    for model_id, needing in ((edited, {first.job, running.job}), (compared, {first.job})):
        with owner.database.transaction() as session, pytest.raises(Conflict) as refused:
            model_purge.begin(session, owner.tenant, model_id)
        assert all(job in refused.value.detail for job in needing)
    running.do(lifecycle.fail, 1, JobError(code="method_failed", message="no way"))
    first.cancel()
    assert len(owner.delete(edited).objects) == len(owner.delete(compared).objects) == 1
    with pytest.raises(InvalidRequest, match="there is no model"):
        owner.submit(edited)


def test_many_that_need_it_are_counted(owner: Owner) -> None:
    model_id = owner.model()
    for _ in range(data_used.NAMED + 2):
        owner.submit(model_id)
    with owner.database.transaction() as session, pytest.raises(Conflict, match="and 2 more"):
        model_purge.begin(session, owner.tenant, model_id)


def test_no_job_slips_in_while_its_model_is_deleted(owner: Owner) -> None:
    """The submission holds a share of the row until it commits; whoever deletes waits, and then sees its job."""
    model_id = owner.model()
    with owner.database.transaction() as submitting:
        assert models.source(submitting, owner.tenant, model_id) is not None
        with owner.database.transaction() as deleting:
            locked = select(Model.id).where(Model.id == model_id).with_for_update(skip_locked=True)
            assert deleting.scalar(locked) is None


def test_a_strangers_model_is_none(owner: Owner, stranger: str) -> None:
    model_id = owner.model()
    with owner.database.transaction() as session, pytest.raises(NotFound):
        model_purge.begin(session, stranger, model_id)
    assert owner.objects("/models")


def test_a_reference_has_no_files_to_delete(owner: Owner) -> None:
    with owner.database.transaction() as session:
        values: dict[str, object] = {"id": "mdl_ref", "reference": "hf-hub:owner/name"}
        models.add(session, tenant_id=owner.tenant, name="elsewhere", values=values)
    receipt = owner.delete("mdl_ref")
    assert (receipt.objects, receipt.versions) == ((), "none")


def test_what_a_published_model_leaves_still_reads(owner: Owner) -> None:
    world = owner.submit(owner.model())
    owner.end(world, passed=True)
    result = world.view().result_model
    assert result is not None
    with owner.database.transaction() as session:
        caller = api_keys.Principal(owner.tenant, "key_reader", frozenset())
        weight_downloads.weights_fetched(session, caller, world.job, "ab")
    before = world.view().version
    assert len(owner.delete(result).objects) == 1

    view = world.view()
    assert (view.result_model, [(r.what, r.reason) for r in view.removals]) == (result, [("weights", "model_deleted")])
    assert view.version > before
    with owner.database.transaction() as session:
        assert queries.report(session, owner.tenant, world.job).name == "report.json"
        with pytest.raises(Gone, match="its model was deleted"):
            queries.weights(session, owner.tenant, world.job, "open_clip_model.safetensors")
        assert [fetch.key for fetch in weight_downloads.fetches(session, owner.tenant, result)] == ["key_reader"]
    sweeper.sweep_jobs(owner.database, owner.storage)
    assert [key.rsplit("/", 1)[1] for key in owner.objects(f"/jobs/{world.job}")] == ["report.html", "report.json"]


def test_a_deletion_that_died_is_taken_up_again(owner: Owner) -> None:
    model_id = owner.model()
    with owner.database.transaction() as session:
        model_purge.begin(session, owner.tenant, model_id)
    assert owner.objects("/models")
    assert sweeper.sweep_models(owner.database, owner.storage) == 1
    assert not owner.objects("/models")
    assert sweeper.sweep_models(owner.database, owner.storage) == 0
    assert len(owner.delete(model_id).objects) == 1


@pytest.mark.parametrize("lost", ["the row", "the receipt", "nothing"])
def test_a_deleted_model_that_a_backup_brings_back_goes_again(owner: Owner, lost: str) -> None:
    model_id = owner.model()
    owner.delete(model_id)
    owner.storage.put(f"{models.prefix(owner.tenant, model_id)}/open_clip_model.safetensors", WEIGHTS)
    with owner.database.transaction() as session:
        if lost != "nothing":  # Postgres is older than the deletion
            session.execute(ModelPurgeRow.__table__.delete())
            session.execute(update(Model).values(deleted_at=None))
        if lost == "the row":
            session.execute(Model.__table__.delete())
    if lost != "the row":
        owner.submit(model_id) if lost == "the receipt" else None  # a restored job does not keep it
    with owner.database.transaction() as session:
        listed = restored_backups.parse(
            entry.line().encode() for entry in restored_backups.purged(session, owner.storage)
        )
        assert [entry.id for entry in restored_backups.pending(session, owner.storage, listed)] == [model_id]
    assert restored_backups.purge_again(owner.database, owner.storage, owner.settings, listed) == 1
    assert not owner.objects("/models")
    assert restored_backups.purge_again(owner.database, owner.storage, owner.settings, listed) == 0


@pytest.mark.parametrize(
    "prefix", ["tenants/other/models/m", "", "tenants/T/datasets/x", "tenants/T/models/..", "audit"]
)
def test_a_list_from_outside_deletes_nothing_else(prefix: str) -> None:
    line = restored_backups.Purged("mdl_1", "T", prefix, model=True).line().encode()
    if prefix:
        with pytest.raises(InvalidRequest, match="line 1"):
            restored_backups.parse([line])
    else:
        assert restored_backups.parse([line])[0].key == ""


def test_a_data_set_is_purged_at_once(owner: Owner, upload: Callable[..., str], stranger: str) -> None:
    dataset = upload("horse")
    with owner.database.transaction() as session, pytest.raises(NotFound):
        datasets.begin_deletion(session, stranger, dataset, owner.settings)
    with owner.database.transaction() as session:
        doomed = datasets.begin_deletion(session, owner.tenant, dataset, owner.settings)
    assert doomed is not None
    sweeper.purge(owner.database, owner.storage, doomed)
    with owner.database.transaction() as session:
        assert datasets.begin_deletion(session, owner.tenant, dataset, owner.settings) is None  # it is done
        receipt = datasets.receipt(session, dataset)
    assert (receipt.state, receipt.reason, len(receipt.objects)) == ("purged", "deleted", 1)
    assert receipt.key_destroyed_at is not None and receipt.listing_empty_at is not None
    assert owner.objects("/datasets") == []


def test_a_data_set_that_a_job_needs_stays(owner: Owner, upload: Callable[..., str], clip: Path) -> None:
    dataset = upload("horse")
    request = requests.subgroup(clip, forget=dataset, retain=upload("horse", "dog"))
    with owner.database.transaction() as session:
        world = World(
            owner.database, owner.tenant, submission.submit(session, owner.tenant, request, owner.settings).id
        )
    with owner.database.transaction() as session, pytest.raises(Conflict, match=world.job):
        datasets.begin_deletion(session, owner.tenant, dataset, owner.settings)
    world.cancel()
    with owner.database.transaction() as session:
        assert datasets.begin_deletion(session, owner.tenant, dataset, owner.settings) is not None


@pytest.mark.parametrize("certified", [True, False])
def test_reports_and_quarantined_weights_go_when_their_time_is_over(owner: Owner, certified: bool) -> None:
    settings = owner.settings.model_copy(update={"quarantine_retention_days": 2.0, "report_retention_days": 4.0})
    world = owner.submit(owner.model())
    owner.end(world, passed=False)
    sweeper.sweep(owner.database, owner.storage, settings)
    if certified:
        with owner.database.transaction() as session:
            session.execute(update(Job).values(certified_at=func.now()))
    names = lambda: [key.rsplit("/", 1)[1] for key in owner.objects(f"/jobs/{world.job}")]  # noqa: E731
    assert len(names()) == 3
    owner.age(3)
    sweeper.sweep(owner.database, owner.storage, settings)
    assert names() == ["report.html", "report.json"]
    owner.age(5)
    with owner.database.transaction() as session:
        session.execute(update(Job).values(certified_at=func.now() if certified else None))
    sweeper.sweep(owner.database, owner.storage, settings)
    assert names() == ([] if certified else ["report.html", "report.json"])  # a certificate is made from the report

    told = [(removal.what, removal.reason) for removal in world.view().removals]
    assert told == [("quarantined_weights", "retention_ended"), ("report", "retention_ended")][: len(told)]
    assert len(told) == (2 if certified else 1)
    with owner.database.transaction() as session:
        receipt = job_leftovers.receipt(session, owner.tenant, world.job)
        if certified:
            with pytest.raises(Gone, match="the time for which it is kept is over"):
                queries.report(session, owner.tenant, world.job)
    assert receipt.complete and len(receipt.leftovers) == (3 if certified else 1)
    assert len(owner.audited("job.files_removed")) == len(told)


def test_without_a_setting_nothing_goes(owner: Owner) -> None:
    settings = owner.settings.model_copy(update={"quarantine_retention_days": None, "report_retention_days": None})
    world = owner.submit(owner.model())
    owner.end(world, passed=False)
    owner.age(10_000)
    sweeper.sweep(owner.database, owner.storage, settings)
    assert len(owner.objects(f"/jobs/{world.job}")) == 3 and world.view().removals == ()
