"""A worker's Celery consumer: made anew where it is deaf, and of no account where there is none."""

import os
import signal
import time
from collections.abc import Iterator
from datetime import datetime

import pytest
from sqlalchemy import delete, func, select, update

from services.jobs import submission
from shared.ports.queue import Doorbell, make_queue
from shared.postgres.tables import Job, Outbox, ServiceProcess
from shared.settings import Settings
from shared.states import DoorbellState
from tests.support import requests
from tests.support.dropping import wait_for
from tests.support.fleet import Fleet, wait_until
from worker.bell import Bell


@pytest.fixture
def doorbell(settings: Settings) -> Doorbell:
    """The queue."""
    return Doorbell(make_queue(settings))


@pytest.fixture
def bell(settings: Settings) -> Iterator[Bell]:
    """A listener of no worker."""
    bell = Bell(settings, silent_seconds=1, start_seconds=3)
    yield bell
    bell.stop()


def test_a_job_that_nobody_announces_is_found(fleet: Fleet) -> None:
    """There is no relay, and Postgres calls nobody: by hand a job on hold becomes free."""
    worker = fleet.worker()
    wait_until(lambda: _beats(fleet), "the worker does not start")
    with fleet.database.transaction() as session:
        request = requests.names_only(fleet.folder / "clip", metadata={"what": "fail"})
        job = submission.submit(session, fleet.tenant_id, request, fleet.settings).id
        session.execute(update(Job).where(Job.id == job).values(held_at=func.now()))
        session.execute(delete(Outbox))
    before = _beats(fleet)
    wait_until(lambda: _beats(fleet) != before, "the worker does not look")
    with fleet.database.transaction() as session:
        session.execute(update(Job).where(Job.id == job).values(held_at=None, doorbell_at=func.clock_timestamp()))
    wait_for(fleet, job)
    wait_until(lambda: "doorbell.job_unannounced" in worker.plain_log(), "the log does not say so")


def _beats(fleet: Fleet) -> list[datetime]:
    with fleet.database.transaction() as session:
        return list(session.scalars(select(ServiceProcess.seen_at)))


def test_a_deaf_listener_is_made_anew(bell: Bell, doorbell: Doorbell) -> None:
    """It is frozen: as deaf as one whose connection was dropped unseen. What it does then is what any new one does."""
    bell.start()
    doorbell.ring()
    wait_until(bell.take, "the first message was not heard")
    first = bell._process
    assert first is not None
    os.kill(first.pid, signal.SIGSTOP)
    bell.looked()
    doorbell.ring()
    wait_until(lambda: bell.report().renewals >= 1, "nobody noticed")
    wait_until(bell.take, "the new listener hears nothing")
    assert bell.report().state is DoorbellState.HEARD
    assert first.poll() is not None


def test_a_busy_worker_takes_one_message_and_no_more(settings: Settings, doorbell: Doorbell) -> None:
    """So the length of the queue stays what operators scale workers by."""
    bell = Bell(settings)
    bell.start()
    try:
        for _ in range(3):
            doorbell.ring()
        wait_until(bell.take, "no message was heard")
        time.sleep(1.0)
        assert doorbell.length() == 2
        bell.looked()
        wait_until(lambda: doorbell.length() == 1, "it takes no more")
    finally:
        bell.stop()
