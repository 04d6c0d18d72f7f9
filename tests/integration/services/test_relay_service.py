"""The outbox: what was committed is sent, at least once, and then forgotten."""

import threading
from collections.abc import Callable
from datetime import timedelta

import pytest
from pydantic import SecretStr
from sqlalchemy import func, select, update

from services import relay
from services.access import idempotency
from services.fleet import health, processes
from services.jobs import lifecycle
from services.purging import job_leftovers
from shared.errors import Unavailable
from shared.ports.embedded_servers import free_port
from shared.ports.object_storage import Storage
from shared.ports.queue import Doorbell, make_queue
from shared.postgres.database import Database
from shared.postgres.tables import IdempotencyKey, Job, Outbox, ServiceProcess
from shared.settings import Settings
from shared.states import ProcessKind
from tests.support.fleet import wait_until
from tests.support.world import World, passed


@pytest.fixture
def doorbell(settings: Settings) -> Doorbell:
    """The queue on the session's Redis."""
    return Doorbell(make_queue(settings))


def test_what_is_committed_is_sent_and_forgotten(
    database: Database, doorbell: Doorbell, submit: Callable[..., str]
) -> None:
    waiting = [submit() for _ in range(3)]
    with database.transaction() as session:
        assert relay.publish(session, doorbell, limit=2) == 2
    with database.transaction() as session:
        assert relay.publish(session, doorbell) == 1
        assert relay.publish(session, doorbell) == 0
        assert session.scalars(select(Outbox)).all() == []
        assert all(session.scalars(select(Job.doorbell_at).where(Job.id.in_(waiting))))
    assert doorbell.length() == 3


def test_two_relays_send_different_rows(database: Database, doorbell: Doorbell, submit: Callable[..., str]) -> None:
    submit(), submit()
    with database.transaction() as one, database.transaction() as two:
        assert relay.publish(one, doorbell, limit=1) == 1
        assert relay.publish(two, doorbell) == 1
    assert doorbell.length() == 2


def test_while_redis_is_down_the_row_waits(
    database: Database, settings: Settings, doorbell: Doorbell, submit: Callable[..., str]
) -> None:
    submit()
    down = settings.model_copy(update={"redis_url": SecretStr(f"redis://127.0.0.1:{free_port()}/0")})
    with pytest.raises(Unavailable, match="Redis does not answer"), database.transaction() as session:
        relay.publish(session, Doorbell(make_queue(down)))
    with database.transaction() as session:
        assert relay.publish(session, doorbell) == 1


def test_leftovers_are_all_that_the_winner_did_not_leave(
    database: Database, storage: Storage, tenant: str, submit: Callable[..., str]
) -> None:
    job = submit()
    prefix = f"tenants/{tenant}/jobs/{job}"
    for name in ("checkpoints/preparing", "1/report.json", "2/model/open_clip_model.safetensors", "20/other"):
        storage.put(f"{prefix}/{name}", b"x")
    storage.put(f"{prefix}0/neighbour", b"x")
    world = World(database, tenant, job)
    world.claim()
    world.expire()
    world.claim()
    with database.transaction() as session:
        assert job_leftovers.unpurged(session) == []
    world.do(lifecycle.complete, 2, passed(world, 2))
    with database.transaction() as session:
        (ended,) = job_leftovers.unpurged(session)
    assert (ended.job_id, ended.attempt) == (job, 2)
    deleted = job_leftovers.delete_leftovers(storage, ended)
    assert [found.key.removeprefix(prefix) for found in deleted.objects] == [
        "/1/report.json",
        "/20/other",
        "/checkpoints/preparing",
    ]
    assert [o.key for o in storage.list(prefix)] == [f"{prefix}/2/model/open_clip_model.safetensors"]
    assert len(storage.list(f"{prefix}0")) == 1
    with database.transaction() as session:
        job_leftovers.mark_purged(session, ended, deleted)
        assert job_leftovers.unpurged(session) == []
        job_leftovers.sweep_again(session, job)
        assert [ended.job_id for ended in job_leftovers.unpurged(session)] == [job]


def test_the_relay_deletes_answers_whose_time_is_over(
    database: Database, doorbell: Doorbell, storage: Storage, settings: Settings, tenant: str
) -> None:
    def keep(key: str, seconds: float) -> None:
        call = idempotency.call(tenant, key, method="POST", path="/jobs", payload=None)
        with database.transaction() as session:
            idempotency.once(session, call, lambda: idempotency.Answer(200, "{}", {}), seconds)

    def kept() -> list[str]:
        with database.transaction() as session:
            return list(session.scalars(select(IdempotencyKey.key)))

    keep("old", -1)
    keep("new", 60)
    stop = threading.Event()
    running = threading.Thread(target=relay.run_relay, args=(database, doorbell, storage, settings, stop))
    running.start()
    try:
        wait_until(lambda: kept() == ["new"], "the expired answer is still there")
    finally:
        stop.set()
        running.join(30)


def test_a_relay_shows_that_it_lives_and_what_of_it_is_stuck(
    database: Database, doorbell: Doorbell, storage: Storage, settings: Settings
) -> None:
    def seen() -> list[processes.Seen]:
        with database.transaction() as session:
            return processes.seen(session, ProcessKind.RELAY)

    stop = threading.Event()
    running = threading.Thread(target=relay.run_relay, args=(database, doorbell, storage, settings, stop))
    running.start()
    try:
        wait_until(seen, "it says nothing")
        (row,) = seen()
        assert row.alive
        assert row.facts == {"signing_key": False, "stuck": {}}
    finally:
        stop.set()
        running.join(30)
    assert seen() == []


def test_a_part_that_does_not_come_round_is_stuck() -> None:
    pulse = relay.Pulse()
    parts = [relay.Part("quick", lambda: None, 0), relay.Part("slow", lambda: None, 3600)]
    for part in parts:
        pulse.of(part.name)()
    assert pulse.stuck(parts) == {}
    for name in ("quick", "slow"):
        pulse._last[name] -= relay.PATIENCE_SECONDS + 10
    assert list(pulse.stuck(parts)) == ["quick"]


def test_without_redis_deadlines_are_watched_and_lost_jobs_taken_back(
    database: Database, settings: Settings, storage: Storage, tenant: str, submit: Callable[..., str]
) -> None:
    away = settings.model_copy(update={"redis_url": SecretStr(f"redis://127.0.0.1:{free_port()}/0")})
    lost, late = submit(), submit()
    World(database, tenant, lost).claim()
    with database.transaction() as session:
        past = func.clock_timestamp() - timedelta(seconds=1)
        session.execute(update(Job).where(Job.id == lost).values(lease_expires_at=past))
        session.execute(update(Job).where(Job.id == late).values(due_at=past))
    stop = threading.Event()
    arguments = (database, Doorbell(make_queue(away)), storage, away, stop)
    running = threading.Thread(target=relay.run_relay, args=arguments)
    running.start()
    try:
        wait_until(lambda: World(database, tenant, lost).view().state == "queued", "it is not taken back")
        wait_until(lambda: World(database, tenant, late).view().at_risk_at, "nobody watches the deadline")
    finally:
        stop.set()
        running.join(30)


def test_processes_that_are_long_gone_are_forgotten(database: Database) -> None:
    with database.transaction() as session:
        for name in ("old", "new"):
            processes.beat(session, processes.Sign(name, ProcessKind.WORKER, "here", 1, "1.0"))
        past = func.clock_timestamp() - timedelta(seconds=processes.FORGET_SECONDS + 1)
        session.execute(update(ServiceProcess).where(ServiceProcess.id == "old").values(seen_at=past))
        processes.forget(session)
    with database.transaction() as session:
        assert [row.id for row in processes.seen(session)] == ["new"]
        assert health.silent_here(session, ProcessKind.WORKER, "here") is None
        assert (
            health.silent_here(session, ProcessKind.WORKER, "elsewhere")
            == "no worker on elsewhere has said that it lives"
        )
        assert health.silent_here(session, ProcessKind.RELAY, "here") is not None
