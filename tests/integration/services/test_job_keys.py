"""A job has one key from its first claim to its end, whichever way it ends; it is stored sealed, and rewrapped."""

import base64
import os
from collections.abc import Callable
from dataclasses import replace

import pytest
from pydantic import SecretStr
from sqlalchemy import select

from services.jobs import job_keys, lifecycle
from services.jobs.lifecycle import Claim
from shared.crypto.archive_encryption import Sealer
from shared.postgres.database import Database
from shared.postgres.tables import Job
from shared.schemas.job import JobError
from shared.settings import Settings
from tests.support.world import World, passed

LOST = JobError(code="worker_lost", message="it was unplugged")


@pytest.fixture
def world(database: Database, tenant: str, submit: Callable[..., str]) -> World:
    return World(database, tenant, submit())


def claimed(world: World, settings: Settings) -> Claim:
    """Claim a job as a worker does."""
    with world.database.transaction() as session:
        claim = lifecycle.claim(session, world.job, "w", 60)
        assert claim is not None
        return replace(claim, spec=job_keys.with_key(session, claim.spec, settings))


def row(world: World) -> Job:
    with world.database.transaction() as session:
        return session.scalars(select(Job)).one()


def opened(key: str | None, settings: Settings, job: str) -> bytes:
    assert key is not None
    return Sealer.of(settings).opened(base64.b64decode(key), job)


def test_every_attempt_gets_the_same_key(world: World, settings: Settings) -> None:
    first = claimed(world, settings).spec.data_key
    world.do(lifecycle.give_back, 1, LOST)
    second = claimed(world, settings).spec.data_key
    assert opened(first, settings, world.job) == opened(second, settings, world.job)
    assert row(world).key_destroyed_at is None
    assert row(world).spec["data_key"] is None  # it is in the claim, and in one column


@pytest.mark.parametrize(
    "end",
    [
        lambda world: world.do(lifecycle.complete, 1, passed(world, 1)),
        lambda world: world.do(lifecycle.fail, 1, LOST),
        lambda world: (world.cancel(), world.do(lifecycle.confirm_cancel, 1)),
    ],
    ids=["succeeded", "failed", "cancelled"],
)
def test_its_end_destroys_the_key(world: World, settings: Settings, end: Callable[[World], object]) -> None:
    claimed(world, settings)
    end(world)
    job = row(world)
    assert job.data_key is None and job.key_destroyed_at == job.finished_at is not None


def test_a_job_that_never_ran_has_none_to_destroy(world: World) -> None:
    world.cancel()
    assert row(world).key_destroyed_at is None


def test_without_a_master_key_there_is_none(world: World, settings: Settings) -> None:
    bare = settings.model_copy(update={"master_key": None})
    assert claimed(world, bare).spec.data_key is None


def test_it_is_rewrapped_with_the_others(world: World, settings: Settings) -> None:
    before = opened(claimed(world, settings).spec.data_key, settings, world.job)
    new, old = base64.b64encode(os.urandom(32)).decode(), settings.master_key
    assert old is not None
    both = settings.model_copy(update={"master_key": SecretStr(f"{new},{old.get_secret_value()}")})
    with world.database.transaction() as session:
        assert job_keys.rewrap(session, both) == 1
    key = row(world).data_key
    assert key is not None
    alone = settings.model_copy(update={"master_key": SecretStr(new)})
    assert Sealer.of(alone).opened(key, world.job) == before
