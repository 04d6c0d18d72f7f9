"""The outbox: what was committed is sent, at least once, and then forgotten."""

import threading
from collections.abc import Callable

import pytest
from kombu.exceptions import OperationalError
from pydantic import SecretStr
from sqlalchemy import select

from services import idempotency, lifecycle, relay, retention
from shared.database import Database
from shared.embedded import free_port
from shared.queue import Doorbell, make_queue
from shared.settings import Settings
from shared.storage import Storage
from shared.tables import IdempotencyKey, Job, Outbox
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
    with pytest.raises(OperationalError), database.transaction() as session:
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
        assert retention.unpurged(session) == []
    world.do(lifecycle.complete, 2, passed(world, 2))
    with database.transaction() as session:
        (ended,) = retention.unpurged(session)
    assert (ended.job_id, ended.attempt) == (job, 2)
    deleted = retention.delete_leftovers(storage, ended)
    assert [found.key.removeprefix(prefix) for found in deleted.objects] == [
        "/1/report.json",
        "/20/other",
        "/checkpoints/preparing",
    ]
    assert [o.key for o in storage.list(prefix)] == [f"{prefix}/2/model/open_clip_model.safetensors"]
    assert len(storage.list(f"{prefix}0")) == 1
    with database.transaction() as session:
        retention.mark_purged(session, ended, deleted)
        assert retention.unpurged(session) == []
        retention.sweep_again(session, job)
        assert [ended.job_id for ended in retention.unpurged(session)] == [job]


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
