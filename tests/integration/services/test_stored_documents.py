"""Rows that another version has written: read leniently, and what cannot be read stops nothing else."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select

from services.jobs import lifecycle, queries
from services.jobs.queries import JobFilter
from services.purging import job_leftovers, sweeper
from shared.ports.object_storage import Storage
from shared.postgres.database import Database
from shared.postgres.tables import DOCUMENT_VERSION, Job
from shared.schemas.request import ErasureRequest
from shared.schemas.stored import Unreadable, stored, stored_spec
from shared.settings import Settings
from shared.states import JobState
from tests.support.world import World


def rewrite(database: Database, job_id: str, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a job's stored documents as if another version had written them."""
    with database.transaction() as session:
        job = session.get_one(Job, job_id)
        for name in ("request", "spec"):
            document = dict(getattr(job, name))
            change(document)
            setattr(job, name, document)


def with_old_fields(document: dict[str, Any]) -> None:
    """Add fields that this version does not know, at every depth."""
    request = document.get("request", document)
    request["retired"] = 1
    request["target"] = request["target"] | {"retired": {"a": 1}}
    request["method"] = request["method"] | {"parameters": {"retired": True, "samples_per_class": 8}}
    if request is not document:
        document["retired"] = []
        document["model"] = document["model"] | {"retired": None}
        document["thresholds"] = document["thresholds"] | {"max_retired": 0.1}


def without_a_field(document: dict[str, Any]) -> None:
    """Take away what cannot be left out."""
    request = dict(document.get("request", document))
    request.pop("target")
    document["request" if "request" in document else "target"] = request if "request" in document else None


def listed(database: Database, tenant: str) -> list[str]:
    with database.transaction() as session:
        return [job.id for job in queries.list_page(session, tenant, JobFilter()).data]


def test_new_rows_say_in_which_form_they_are(database: Database, submit: Callable[..., str]) -> None:
    submit()
    with database.transaction() as session:
        assert session.scalars(select(Job.document_version)).one() == DOCUMENT_VERSION


def test_unknown_fields_are_left_out(database: Database, tenant: str, submit: Callable[..., str]) -> None:
    world = World(database, tenant, submit())
    rewrite(database, world.job, with_old_fields)
    view = world.view()
    assert view.request is not None and view.thresholds is not None
    assert view.request.method.parameters == {"samples_per_class": 8}
    claim = world.claim()
    assert claim is not None and claim.spec.request == view.request
    assert stored_spec(claim.spec.model_dump(mode="json")) == claim.spec  # what the child gets is strictly sound


def test_what_cannot_be_read_is_shown_as_far_as_it_can_be(
    database: Database, tenant: str, submit: Callable[..., str]
) -> None:
    sound, broken = submit(), submit(external_id="old")
    rewrite(database, broken, without_a_field)
    assert listed(database, tenant) == [broken, sound]
    view = World(database, tenant, broken).view()
    assert (view.request, view.external_id, view.state) == (None, "old", JobState.QUEUED)


def test_a_job_that_cannot_be_read_fails_and_holds_up_no_other(
    database: Database, tenant: str, submit: Callable[..., str]
) -> None:
    broken, sound = submit(), submit()
    rewrite(database, broken, without_a_field)
    taken = []
    for _ in range(2):  # the first look meets the broken one, and goes on to the next in line
        with database.transaction() as session:
            claim = lifecycle.claim_next(session, "w", 60)
            taken.append(claim.spec.job_id if claim else None)
    assert taken == [sound, None]
    error = World(database, tenant, broken).view().error
    assert error is not None and error.code == "unreadable_document" and "target" in error.message


@pytest.mark.parametrize("change", [with_old_fields, without_a_field])
def test_old_rows_stop_no_purge(
    database: Database, storage: Storage, settings: Settings, tenant: str, submit: Callable[..., str], change: Any
) -> None:
    old, new = submit(), submit()
    for job in (old, new):
        World(database, tenant, job).cancel()
        storage.put(f"tenants/{tenant}/jobs/{job}/checkpoints/1", b"x")
    rewrite(database, old, change)
    assert sweeper.sweep_jobs(database, storage) == 2
    assert storage.list(f"tenants/{tenant}/jobs") == []
    with database.transaction() as session:
        assert job_leftovers.receipt(session, tenant, old).complete


def test_errors_say_which_field() -> None:
    with pytest.raises(Unreadable, match="ErasureRequest: /model"):
        stored(ErasureRequest, {"model": 3, "target": {}, "method": {}})
