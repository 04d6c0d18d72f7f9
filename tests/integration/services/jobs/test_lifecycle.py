"""Claims, leases and fences, one transaction at a time."""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from services.jobs import lifecycle, queries
from services.jobs.lifecycle import Lease, Step
from shared.postgres.database import Database
from shared.postgres.tables import Artifact, JobEvent, JobMetric, Model, Outbox
from shared.schemas.job import JobError
from shared.states import JobState, Stage
from tests.support.world import World, passed

LOST = JobError(code="worker_lost", message="it was unplugged")


@pytest.fixture
def world(database: Database, tenant: str, submit: Callable[..., str]) -> World:
    """A queued job."""
    return World(database, tenant, submit())


def test_one_of_many_claims_wins(world: World) -> None:
    with ThreadPoolExecutor(8) as pool:
        claims = list(pool.map(lambda _: world.claim(), range(8)))
    (claim,) = [claim for claim in claims if claim is not None]
    assert (claim.attempt, claim.spec.attempt, claim.spec.job_id) == (1, 1, world.job)
    assert world.view().state == JobState.RUNNING


def test_an_expired_lease_may_be_claimed_and_a_fresh_one_not(world: World) -> None:
    assert world.claim() is not None
    assert world.claim() is None
    world.expire()
    claim = world.claim()
    assert claim is not None
    assert claim.attempt == 2


def test_a_lease_is_held_until_somebody_else_has_the_job(world: World) -> None:
    world.claim()
    world.expire()
    assert world.do(lifecycle.renew, 1, "w", 60) is Lease.HELD
    assert world.take_back() == 0
    world.expire()
    world.claim()
    assert world.do(lifecycle.renew, 1, "w", 60) is Lease.LOST
    assert world.do(lifecycle.renew, 2, "somebody", 60) is Lease.LOST


def test_the_heartbeat_tells_of_a_cancel(world: World) -> None:
    world.claim()
    world.cancel()
    assert world.do(lifecycle.renew, 1, "w", 60) is Lease.CANCEL
    assert world.do(lifecycle.confirm_cancel, 1) is True
    assert world.view().state == JobState.CANCELLED


def test_every_write_of_an_old_attempt_is_refused(world: World) -> None:
    world.claim()
    world.expire()
    world.claim()
    before, tables = world.view(), (Artifact, JobEvent, JobMetric, Model, Outbox)
    counts = [world.count(table) for table in tables]
    assert world.do(lifecycle.enter_stage, 1, Stage.AUDITING) is False
    assert world.do(lifecycle.record_steps, 1, [Step(Stage.AUDITING, 1, {"loss": 1.0})], 0.5) is False
    assert world.do(lifecycle.complete, 1, passed(world, 1)) is False
    assert world.do(lifecycle.fail, 1, LOST) is False
    assert world.do(lifecycle.confirm_cancel, 1) is False
    assert world.do(lifecycle.give_back, 1, LOST) is False
    assert world.view() == before
    assert [world.count(table) for table in tables] == counts


def test_a_result_counts_once(world: World) -> None:
    world.claim()
    assert world.do(lifecycle.complete, 1, passed(world, 1)) is True
    assert world.do(lifecycle.complete, 1, passed(world, 1)) is False
    view = world.view()
    with world.database.transaction() as session:
        (model,) = session.scalars(select(Model)).all()
    assert (view.state, view.result_model, view.verdict) == (JobState.SUCCEEDED, model.id, "passed")
    assert (view.stage, view.progress) == (None, 1.0)
    assert model.reference == f"storage:tenants/{world.tenant}/jobs/{world.job}/1/model"
    assert (model.job_id, model.digest, model.architecture) == (world.job, "ab", "ViT")


def test_once_a_cancel_was_accepted_nothing_is_published(world: World) -> None:
    world.claim()
    world.cancel()
    assert world.do(lifecycle.complete, 1, passed(world, 1)) is True
    assert world.view().state == JobState.CANCELLED
    assert (world.count(Model), world.count(Artifact)) == (0, 0)


def test_what_lost_its_lease_is_queued_again_with_a_message(world: World) -> None:
    world.claim()
    assert world.do(lifecycle.record_steps, 1, [], 0.83) is True
    messages = world.count(Outbox)
    world.expire()
    assert world.take_back() == 1
    assert (world.view().state, world.view().progress) == (JobState.QUEUED, 0.0)
    assert world.count(Outbox) == messages + 1
    assert world.take_back() == 0


def test_after_the_last_attempt_the_job_fails(world: World) -> None:
    limit = 3
    for attempt in range(1, limit + 1):
        assert world.view().state == JobState.QUEUED
        world.claim()
        world.do(lifecycle.give_back, attempt, LOST)
    view = world.view()
    assert view.error is not None
    assert (view.state, view.attempt, view.error.code) == (JobState.FAILED, limit, "worker_lost")
    assert "it was unplugged" in view.error.message


def test_a_lease_that_runs_out_at_the_last_attempt_fails_the_job(world: World) -> None:
    for _ in range(3):
        world.claim()
        world.expire()
    assert world.claim() is None
    assert world.take_back() == 1
    assert world.view().state == JobState.FAILED


def test_an_attempt_that_was_given_back_does_not_count(world: World) -> None:
    for attempt in range(1, 6):
        world.claim()
        world.do(lifecycle.give_back, attempt, LOST, counts=False)
    assert (world.view().state, world.view().attempt) == (JobState.QUEUED, 5)


@pytest.mark.parametrize("how", ["give back", "lease"])
def test_a_lost_job_that_was_cancelled_is_not_started_again(world: World, how: str) -> None:
    world.claim()
    world.cancel()
    world.expire()
    assert world.claim() is None
    if how == "give back":
        world.do(lifecycle.give_back, 1, LOST)
    else:
        world.take_back()
    assert world.view().state == JobState.CANCELLED


def test_steps_become_series_and_one_event(world: World) -> None:
    world.claim()
    steps = [Step(Stage.FORGETTING, 1, {"loss": 2.0}), Step(Stage.FORGETTING, 2, {"loss": math.nan})]
    assert world.do(lifecycle.record_steps, 1, steps, 0.25) is True
    with world.database.transaction() as session:
        (series,) = queries.metrics(session, world.tenant, world.job)
        last = queries.events(session, world.tenant, world.job).data[-1]
    assert [(point.step, point.value) for point in series.points] == [(1, 2.0), (2, None)]
    assert last.type == "job.progress"
    assert last.data == {"stage": "forgetting", "step": 2, "progress": 0.25, "metrics": {}}


class TestRingingAgain:
    """Messages are taken for lost where fewer of them lie on the queue than jobs wait."""

    def ring(self, session: Session, messages: int, republish_seconds: float = 0) -> int:
        return lifecycle.ring_again(session, messages=messages, republish_seconds=republish_seconds)

    def test_as_many_as_are_missing_those_first_that_wait_longest(
        self, database: Database, submit: Callable[..., str]
    ) -> None:
        waiting = [submit() for _ in range(4)]
        with database.transaction() as session:
            session.execute(Outbox.__table__.delete())
            assert self.ring(session, messages=2) == 2
            assert session.scalars(select(Outbox.job_id).order_by(Outbox.id)).all() == waiting[:2]
            assert self.ring(session, messages=4) == 0

    def test_not_while_a_message_is_owed(self, database: Database, submit: Callable[..., str]) -> None:
        submit()
        with database.transaction() as session:
            assert self.ring(session, messages=0) == 0

    def test_not_before_a_message_had_its_chance(self, database: Database, submit: Callable[..., str]) -> None:
        submit()
        with database.transaction() as session:
            session.execute(Outbox.__table__.delete())
            assert self.ring(session, messages=0, republish_seconds=60) == 0
