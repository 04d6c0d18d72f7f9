"""Every row and every object belongs to a tenant."""

from collections.abc import Callable
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from services.catalog import datasets, models
from services.jobs import lifecycle, submission
from shared.ports.object_storage import Storage
from shared.postgres.database import Database
from shared.postgres.tables import Artifact, Base, Job, JobEvent, JobMetric, Model
from shared.settings import Settings
from shared.states import Stage
from tests.support import requests
from tests.support.world import World, passed

WITHOUT_TENANT = {
    "tenants",
    "outbox",
    "job_datasets",
    "signing_keys",
    "audit_unlinked",
    "audit_chain",
    "audit_heads",
    "processes",
}
"""A tenant is its own; messages and uses of data sets are their job's; keys, processes and the log's chain the deployment's."""
OF_THE_DEPLOYMENT = {"audit_log"}
"""Some of its rows say what happened to the deployment itself."""


def test_every_table_says_whose_a_row_is() -> None:
    tables = Base.metadata.tables
    for name in tables.keys() - WITHOUT_TENANT:
        assert "tenant_id" in tables[name].columns, f"{name} has no tenant_id"
        nullable = tables[name].columns["tenant_id"].nullable
        assert nullable == (name in OF_THE_DEPLOYMENT), f"{name}.tenant_id may be null"
    assert not tables["outbox"].columns["job_id"].nullable


def test_what_a_job_leaves_is_its_tenants(database: Database, tenant: str, submit: Callable[..., str]) -> None:
    world = World(database, tenant, submit())
    world.claim()
    world.do(lifecycle.enter_stage, 1, Stage.FORGETTING)
    world.do(lifecycle.record_steps, 1, [lifecycle.Step(Stage.FORGETTING, 1, {"loss": 1.0})], 0.5)
    world.do(lifecycle.complete, 1, passed(world, 1))
    with database.transaction() as session:
        for table in (Job, JobEvent, JobMetric, Artifact, Model):
            assert set(session.scalars(select(table.tenant_id))) == {tenant}, table.__tablename__


def test_every_object_lies_below_its_tenant(
    session: Session, tenant: str, settings: Settings, storage: Storage, clip: Path, tmp_path: Path
) -> None:
    archive = requests.archive(tmp_path / "farm.zip", "horse")
    dataset_id = datasets.store(storage, tenant, archive, settings).dataset_id
    weights = requests.safetensors(tmp_path / "clip.safetensors")
    checked = models.check_upload(
        weights, filename=weights.name, architecture=requests.UNKNOWN_ARCHITECTURE, scratch=tmp_path
    )
    model = models.store(storage, tenant, "mdl_uploaded", checked)
    job = session.get_one(Job, submission.submit(session, tenant, requests.names_only(clip), settings).id)
    spec = lifecycle.JobSpec.model_validate(job.spec)
    prefix = f"tenants/{tenant}/"
    stored = [found.key for found in storage.list("tenants")]
    assert {f"{prefix}datasets/{dataset_id}", f"{prefix}models/{model['id']}/open_clip_model.safetensors"} <= set(
        stored
    )
    for key in (*stored, spec.job_prefix, spec.attempt_prefix, spec.checkpoint_prefix, spec.cache_prefix):
        assert key.startswith(prefix), key
