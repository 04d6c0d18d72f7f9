"""Hold, release, extension and refusal, and what they do to the clock and the queue."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from services.jobs import controller_decisions, lifecycle, queries, queue_stats
from services.jobs.deadlines import due
from shared.errors import Conflict, NotFound
from shared.postgres.database import Database
from shared.postgres.tables import Job, Outbox
from shared.schemas.deadline import RefusalRequest
from shared.schemas.job import JobError, JobView
from shared.settings import Settings
from shared.states import Ground, JobState
from tests.support.world import World, passed

UNFOUNDED = RefusalRequest(ground=Ground.MANIFESTLY_UNFOUNDED, detail="the third one this week")


class Ruled(World):
    """A job, and rulings on it, each in a transaction of its own."""

    settings: Settings

    def rule(self, ruling: Callable[..., JobView], *arguments: Any) -> JobView:
        """Rule on the job."""
        with self.database.transaction() as session:
            return ruling(session, self.tenant, self.job, *arguments)

    def hold(self) -> JobView:
        """Put it on hold."""
        return self.rule(controller_decisions.hold, "identity in doubt")

    def release(self) -> JobView:
        """Let it go on."""
        return self.rule(controller_decisions.release, self.settings)

    def extend(self) -> JobView:
        """Extend its period."""
        return self.rule(controller_decisions.extend, "complexity", self.settings)

    def set(self, **values: object) -> None:
        """Make it so that time has passed."""
        with self.database.transaction() as session:
            session.execute(update(Job).where(Job.id == self.job).values(**values))

    def events(self) -> list[str]:
        """Return the types of its events."""
        with self.database.transaction() as session:
            return [event.type for event in queries.events(session, self.tenant, self.job).data]


@pytest.fixture
def world(database: Database, tenant: str, settings: Settings, submit: Callable[..., str]) -> Ruled:
    """A queued job of today."""
    world = Ruled(database, tenant, submit())
    world.settings = settings
    return world


def test_a_job_is_due_a_month_after_it_was_received(submit: Callable[..., str], world: Ruled) -> None:
    world.job = submit(received_at="2026-11-02T09:00:00Z")
    assert world.view().due_at == datetime(2026, 12, 2, 23, 59, 59, tzinfo=UTC)
    assert due(world.view().received_at, world.settings.deadline_time_zone) == world.view().due_at


def test_no_worker_takes_a_job_on_hold_and_no_bell_rings_for_it(world: Ruled) -> None:
    held = world.hold()
    assert held.hold is not None
    assert held.hold.reason == "identity in doubt"
    assert world.hold() == held  # once more changes nothing
    assert world.claim() is None
    with world.database.transaction() as session:
        assert lifecycle.claim_next(session, "w", 60) is None
        session.execute(update(Job).values(created_at=Job.created_at - timedelta(hours=1)))
        for row in session.scalars(select(Outbox)):
            session.delete(row)
        session.flush()
        assert lifecycle.ring_again(session, messages=0, republish_seconds=1) == 0
        assert queue_stats.take(session).oldest_queued_seconds == 0


def test_a_release_rings_and_moves_the_due_date_by_whole_days(world: Ruled) -> None:
    before = world.view().due_at
    world.hold()
    world.set(held_at=datetime.now(UTC) - timedelta(days=3, hours=5))
    rung = world.count(Outbox)
    released = world.release()
    assert before is not None
    assert released.hold is None
    assert released.due_at == before + timedelta(days=3)
    assert world.count(Outbox) == rung + 1
    world.hold()
    world.set(held_at=datetime.now(UTC) - timedelta(hours=20))
    assert world.release().due_at == before + timedelta(days=4)  # 5 + 20 hours are another day
    assert world.events() == ["job.queued", "job.held", "job.released", "job.held", "job.released"]
    assert world.claim() is not None


def test_an_extension_is_two_further_months_once(world: Ruled) -> None:
    extended = world.extend()
    assert extended.due_at == due(extended.received_at, world.settings.deadline_time_zone, extended=True)
    assert extended.extension is not None
    assert extended.extension.reason == "complexity"
    with pytest.raises(Conflict, match="once"):
        world.extend()


def test_after_the_first_month_it_is_too_late_to_extend(world: Ruled) -> None:
    world.set(due_at=datetime.now(UTC) - timedelta(seconds=1))
    with pytest.raises(Conflict, match="before its end"):
        world.extend()


def test_on_hold_the_first_month_does_not_pass(world: Ruled) -> None:
    world.hold()
    now = datetime.now(UTC)
    world.set(held_at=now - timedelta(days=10), due_at=now - timedelta(days=1))
    assert world.extend().extension is not None


def test_a_refused_job_is_cancelled_and_says_why(world: Ruled) -> None:
    world.hold()
    refused = world.rule(controller_decisions.refuse, UNFOUNDED)
    assert (refused.state, refused.hold) == (JobState.CANCELLED, None)
    assert refused.refusal is not None
    assert (refused.refusal.ground, refused.refusal.detail) == (UNFOUNDED.ground, UNFOUNDED.detail)
    assert world.events()[-2:] == ["job.refused", "job.cancelled"]
    assert world.rule(controller_decisions.refuse, UNFOUNDED) == refused
    with pytest.raises(Conflict, match="cancelled"):
        world.rule(controller_decisions.refuse, RefusalRequest(ground=Ground.EXCESSIVE))


def test_a_running_job_that_is_refused_publishes_nothing(world: Ruled) -> None:
    world.claim()
    assert world.rule(controller_decisions.refuse, UNFOUNDED).cancel_requested
    assert world.rule(controller_decisions.refuse, UNFOUNDED).state == JobState.RUNNING
    assert world.do(lifecycle.renew, 1, "w", 60) is lifecycle.Lease.CANCEL
    world.do(lifecycle.complete, 1, passed(world, 1))
    ended = world.view()
    assert (ended.state, ended.result_model) == (JobState.CANCELLED, None)
    assert ended.refusal is not None


def test_what_cannot_be_ruled_any_more(world: Ruled) -> None:
    with pytest.raises(Conflict, match="not on hold"):
        world.release()
    world.claim()
    with pytest.raises(Conflict, match="only one that is queued"):
        world.hold()
    world.cancel()
    with pytest.raises(Conflict, match="being cancelled"):
        world.rule(controller_decisions.refuse, UNFOUNDED)
    world.do(lifecycle.confirm_cancel, 1)
    for late in (world.hold, world.extend, world.release):
        with pytest.raises(Conflict):
            late()


def test_a_failed_job_cannot_be_refused(world: Ruled) -> None:
    world.claim()
    world.do(lifecycle.fail, 1, JobError(code="method_failed", message="No."))
    with pytest.raises(Conflict, match="it is failed"):
        world.rule(controller_decisions.refuse, UNFOUNDED)


def test_every_ruling_changes_the_version(world: Ruled) -> None:
    versions = [world.view().version]
    for ruling in (world.hold, world.release, world.extend, lambda: world.rule(controller_decisions.refuse, UNFOUNDED)):
        versions.append(ruling().version)
    assert versions == sorted(set(versions))


def test_nobody_rules_on_anothers_job(world: Ruled, stranger: str) -> None:
    world.tenant = stranger
    for ruling in (world.hold, world.release, world.extend, lambda: world.rule(controller_decisions.refuse, UNFOUNDED)):
        with pytest.raises(NotFound):
            ruling()
