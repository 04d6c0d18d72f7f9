"""Whatever is killed, stopped or emptied: every accepted job ends exactly once, and nothing is left running."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import select

import migrations
from shared.ports.embedded_servers import embedded_postgres, embedded_redis, free_port
from shared.ports.object_storage import Storage
from shared.postgres.tables import Outbox
from shared.states import JobState, Stage
from tests.support import parts
from tests.support.fleet import ROOT, Fleet, environment, make_fleet, wait_until

SLOW = 0.4
"""Seconds in a stage: time enough to hit it."""


@pytest.fixture
def relay(fleet: Fleet) -> Iterator[None]:
    """A relay runs."""
    with fleet.relay():
        yield


def settle(fleet: Fleet, jobs: list[str]) -> None:
    """Wait until every job has succeeded, then check what holds for all."""
    for job in jobs:
        fleet.wait_for_state(job, JobState.SUCCEEDED)
    fleet.check_promises()


@pytest.mark.usefixtures("relay")
def test_kill_9_of_the_children(fleet: Fleet) -> None:
    """The one that works and the one that stands by."""
    worker = fleet.worker()
    job = fleet.submit(at=Stage.PUBLISHING, what="hang", attempts=1)
    fleet.wait_for_stage(job, Stage.PUBLISHING)
    wait_until(lambda: len(worker.children()) == 2, "no child stands by")
    for child in worker.children():
        child.kill()
    settle(fleet, [job])
    assert fleet.job(job).attempt == 2


@pytest.mark.usefixtures("relay")
@pytest.mark.parametrize("victim", ["supervisor", "everything"])
def test_kill_9_of_the_worker(fleet: Fleet, victim: str) -> None:
    worker = fleet.worker()
    job = fleet.submit(at=Stage.FORGETTING, what="family", attempts=1)
    fleet.wait_for_stage(job, Stage.FORGETTING)
    wait_until(lambda: any(p.name() == "sleep" for p in worker.family()), "the job started nothing")
    if victim == "supervisor":
        worker.supervisor().kill()
    else:
        worker.signal_all(signal.SIGKILL)
    worker.wait_gone()
    fleet.workers.remove(worker)
    fleet.worker()
    settle(fleet, [job])
    assert fleet.job(job).attempt == 2
    assert not any(p.name() == "sleep" for w in [worker, *fleet.workers] for p in w.family())


@pytest.mark.usefixtures("relay")
def test_flushall_with_jobs_queued(fleet: Fleet) -> None:
    fleet.worker()
    running = fleet.submit(seconds=SLOW)
    fleet.wait_for_stage(running, Stage.SYNTHESIZING)
    waiting = [fleet.submit() for _ in range(4)]
    wait_until(lambda: fleet.doorbell.length() == len(waiting), "the messages are not on the queue")
    parts.flush(fleet.settings.redis_url.get_secret_value())
    settle(fleet, [running, *waiting, fleet.submit()])


@pytest.mark.usefixtures("relay")
def test_the_same_message_three_times(fleet: Fleet) -> None:
    for _ in range(2):
        fleet.worker()
    job = fleet.submit(seconds=SLOW)
    for _ in range(3):
        fleet.doorbell.ring()
    settle(fleet, [job])
    wait_until(lambda: fleet.doorbell.length() == 0, "messages are left")
    assert fleet.events(job).count("job.started") == 1


@pytest.mark.usefixtures("relay")
@pytest.mark.parametrize(
    ("stage", "frozen"), [(Stage.FORGETTING, "supervisor"), (Stage.PUBLISHING, "everything")], ids=str
)
def test_a_worker_that_slept_past_its_lease_is_refused(fleet: Fleet, stage: Stage, frozen: str) -> None:
    sleeper = fleet.worker()
    job = fleet.submit(seconds=SLOW)
    fleet.wait_for_stage(job, stage)
    if frozen == "everything":
        sleeper.signal_all(signal.SIGSTOP)
    else:
        sleeper.supervisor().suspend()
    fleet.worker()
    fleet.wait_for_state(job, JobState.SUCCEEDED)
    sleeper.signal_all(signal.SIGCONT)
    wait_until(lambda: "job.discarded" in sleeper.plain_log(), "the sleeper never learnt that it lost the job")
    settle(fleet, [job])
    assert fleet.job(job).attempt == 2


def test_a_relay_that_dies_between_commit_and_publish(fleet: Fleet) -> None:
    job = fleet.submit()  # committed, and no relay is there
    assert fleet.doorbell.length() == 0
    fleet.worker()
    with fleet.relay():
        settle(fleet, [job])


def test_a_relay_that_dies_between_publish_and_commit(fleet: Fleet) -> None:
    """It sends the message and is gone before it can delete the row: the next one sends it again."""
    job = fleet.submit()
    dying = """
import os, threading
from services.relay import run_relay
from shared.postgres.database import Database, make_engine
from shared.ports.queue import Doorbell, make_queue
from shared.settings import get_settings
from shared.ports.object_storage import Storage

class Dying(Doorbell):
    def ring(self):
        super().ring()
        os._exit(9)

settings = get_settings()
storage = Storage(settings.storage_url)
run_relay(Database(make_engine(settings)), Dying(make_queue(settings)), storage, settings, threading.Event())
"""
    done = subprocess.run([sys.executable, "-c", dying], cwd=ROOT, env=environment(fleet.settings))
    assert done.returncode == 9
    with fleet.database.transaction() as session:
        assert session.scalars(select(Outbox.job_id)).all() == [job]
    assert fleet.doorbell.length() == 1
    fleet.worker()
    with fleet.relay():
        settle(fleet, [job])
    assert fleet.events(job).count("job.started") == 1


@pytest.mark.usefixtures("relay")
def test_two_workers_and_two_relays_share_the_work(fleet: Fleet) -> None:
    with fleet.relay():
        for _ in range(2):
            fleet.worker()
        settle(fleet, [fleet.submit(seconds=0.05) for _ in range(8)])


def test_postgres_and_redis_restart_under_a_running_job(tmp_path: Path) -> None:
    postgres = parts.Restartable(partial(embedded_postgres, tmp_path / "postgres", free_port()))
    redis = parts.Restartable(partial(embedded_redis, tmp_path / "redis", free_port()))
    with postgres as postgres_url, redis as redis_url:
        settings = parts.make_settings(postgres_url, redis_url, tmp_path).model_copy(update={"lease_seconds": 20})
        migrations.upgrade(settings.sqlalchemy_url())
        storage = Storage(settings.storage_url)
        with (
            parts.emptied_database(settings) as database,
            make_fleet(settings, database, storage, tmp_path) as fleet,
            fleet.relay(),
        ):
            fleet.worker()
            running, waiting = fleet.submit(seconds=SLOW), fleet.submit()
            fleet.wait_for_stage(running, Stage.SYNTHESIZING)
            postgres.restart()
            redis.restart()
            settle(fleet, [running, waiting, fleet.submit()])
            assert fleet.job(running).attempt == 1
