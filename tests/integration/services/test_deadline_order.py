"""The queue is in the order of due dates, and whoever will not make it is told of once."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

from sqlalchemy import func, text, update

from services.jobs import deadline_risk, lifecycle, queries
from shared.postgres.database import Database
from shared.postgres.tables import Job
from tests.support.fleet import wait_until
from tests.support.world import World, passed


def claim_next(database: Database) -> str | None:
    with database.transaction() as session:
        claim = lifecycle.claim_next(session, "w", 60)
    return None if claim is None else claim.spec.job_id


def set_(database: Database, job: str, **values: object) -> None:
    with database.transaction() as session:
        session.execute(update(Job).where(Job.id == job).values(**values))


def flag(database: Database, longest_seconds: float = 60) -> int:
    with database.transaction() as session:
        return deadline_risk.flag(session, longest_seconds=longest_seconds)


def days_ago(days: int) -> str:
    return (datetime.now(UTC) - timedelta(days=days)).isoformat()


def test_of_one_tenants_jobs_the_one_that_is_due_first_is_taken(database: Database, submit: Callable[..., str]) -> None:
    later, first, last = (submit(received_at=days_ago(days)) for days in (10, 20, 5))
    assert [claim_next(database) for _ in range(4)] == [first, later, last, None]


def test_a_date_long_gone_does_not_buy_the_front(database: Database, submit: Callable[..., str]) -> None:
    """A job that was overdue when it came counts as due at that moment, not in the year that its client names."""
    overdue, ancient = submit(received_at=days_ago(40)), submit(received_at="2000-01-01T00:00:00Z")
    in_time, urgent = submit(received_at=days_ago(5)), submit(received_at=days_ago(20))
    assert [claim_next(database) for _ in range(4)] == [overdue, ancient, urgent, in_time]


def test_a_job_that_was_lost_keeps_its_place(database: Database, tenant: str, submit: Callable[..., str]) -> None:
    first, _ = submit(received_at="2026-05-15T00:00:00Z"), submit(received_at="2026-06-15T00:00:00Z")
    world = World(database, tenant, first)
    world.claim()
    set_(database, first, lease_expires_at=func.clock_timestamp() - timedelta(seconds=1))
    assert claim_next(database) == first
    assert world.view().attempt == 2


def test_claims_at_once_take_different_jobs(database: Database, submit: Callable[..., str]) -> None:
    waiting = {submit() for _ in range(6)}
    with ThreadPoolExecutor(3) as pool:
        taken = list(pool.map(lambda _: claim_next(database), range(6)))
    assert set(taken) == waiting


def test_a_claim_waits_for_the_relay_that_has_just_rung(database: Database, submit: Callable[..., str]) -> None:
    job = submit()

    def waits() -> bool:
        with database.transaction() as session:
            return bool(session.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")))

    with ThreadPoolExecutor(1) as pool:
        with database.transaction() as session:
            session.execute(update(Job).values(doorbell_at=func.clock_timestamp()))
            claiming = pool.submit(claim_next, database)
            wait_until(lambda: waits() or claiming.done(), "the claim neither waits nor ends")
        assert claiming.result(30) == job


def test_a_job_at_risk_is_told_of_once(database: Database, tenant: str, submit: Callable[..., str]) -> None:
    job, _ = submit(), submit()
    set_(database, job, due_at=datetime.now(UTC) + timedelta(seconds=30))
    assert (flag(database), flag(database)) == (1, 0)
    with database.transaction() as session:
        assert queries.get(session, tenant, job).at_risk_at is not None
        *_, event = queries.events(session, tenant, job).data
    assert event.type == "job.deadline_at_risk"
    assert event.data["expected_at"] > event.data["due_at"]


def test_recent_jobs_of_the_method_tell_how_long_one_takes(
    database: Database, tenant: str, submit: Callable[..., str]
) -> None:
    for seconds in (10, 20, 3000):
        world = World(database, tenant, submit())
        world.claim()
        world.do(lifecycle.complete, 1, passed(world, 1))
        set_(database, world.job, started_at=Job.finished_at - timedelta(seconds=seconds))
    ahead, job = submit(received_at="2026-05-15T00:00:00Z"), submit()
    set_(database, ahead, at_risk_at=func.now())
    set_(database, job, due_at=datetime.now(UTC) + timedelta(seconds=45))
    assert flag(database, longest_seconds=1) == 0  # two of 20 s, the median
    set_(database, job, due_at=datetime.now(UTC) + timedelta(seconds=35))
    assert flag(database, longest_seconds=1) == 1


def test_neither_a_hold_nor_the_end_is_a_risk(database: Database, tenant: str, submit: Callable[..., str]) -> None:
    held, ended, running = submit(), submit(), submit()
    past = datetime.now(UTC) - timedelta(days=1)
    for job in (held, ended, running):
        set_(database, job, due_at=past)
    set_(database, held, held_at=past)
    World(database, tenant, ended).cancel()
    World(database, tenant, running).claim()
    assert flag(database) == 1
    with database.transaction() as session:
        assert queries.get(session, tenant, running).at_risk_at is not None
