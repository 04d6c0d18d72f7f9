"""Who has fetched which weights, and who is told that they are superseded."""

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import select

from services.access.api_keys import Principal
from services.jobs import lifecycle, submission, weight_downloads
from shared.errors import NotFound
from shared.postgres.database import Database
from shared.postgres.tables import AuditEntry, JobEvent
from shared.settings import Settings
from tests.support import requests
from tests.support.world import World, passed


@pytest.fixture
def publish(database: Database, tenant: str, settings: Settings, clip: Path) -> Callable[..., World]:
    """Submits a job, on a model or on the first one, and lets it succeed."""

    def run(model: str | None = None) -> World:
        changes = {"model": {"id": model}} if model else {}
        with database.transaction() as session:
            job = submission.submit(session, tenant, requests.names_only(clip, **changes), settings).id
        world = World(database, tenant, job)
        world.claim()
        world.do(lifecycle.complete, 1, passed(world, 1))
        return world

    return run


def fetch(world: World, key: str) -> None:
    with world.database.transaction() as session:
        weight_downloads.weights_fetched(session, Principal(world.tenant, key, frozenset()), world.job, "ab")


def model_of(world: World) -> str:
    model = world.view().result_model
    assert model is not None
    return model


def notices(world: World) -> list[dict[str, object]]:
    with world.database.transaction() as session:
        rows = session.scalars(select(JobEvent).where(JobEvent.job_id == world.job).order_by(JobEvent.seq))
        return [row.data for row in rows if row.type == weight_downloads.SUPERSEDED]


def test_a_fetch_is_registered_by_key_and_audited(publish: Callable[..., World], stranger: str) -> None:
    world = publish()
    fetch(world, "key_1"), fetch(world, "key_2"), fetch(world, "key_1")
    with world.database.transaction() as session:
        found = weight_downloads.fetches(session, world.tenant, model_of(world))
        assert [(f.key, f.count, f.job) for f in found] == [("key_1", 2, world.job), ("key_2", 1, world.job)]
        assert found[0].first_at < found[0].last_at
        entries = session.scalars(select(AuditEntry).where(AuditEntry.action == "weights.fetched")).all()
        assert [entry.detail for entry in entries] == [{"model": model_of(world), "sha256": "ab"}] * 3
        with pytest.raises(NotFound):
            weight_downloads.fetches(session, stranger, model_of(world))


def test_who_has_fetched_an_ancestor_is_told_of_a_newer_erasure(publish: Callable[..., World]) -> None:
    first = publish()
    fetch(first, "key_1")
    second = publish(model_of(first))
    assert notices(first) == [{"model": model_of(first), "superseded_by": model_of(second), "by_job": second.job}]
    third = publish(model_of(second))
    assert [notice["superseded_by"] for notice in notices(first)] == [model_of(second), model_of(third)]
    assert notices(second) == []  # nobody has fetched it


def test_an_erasure_beside_it_supersedes_nothing(publish: Callable[..., World]) -> None:
    base = publish()
    left = publish(model_of(base))
    fetch(left, "key_1")
    publish(model_of(base))
    assert notices(left) == []
