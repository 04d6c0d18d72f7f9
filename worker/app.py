"""The worker: waits until a job may wait, takes the one whose turn it is, sees it through, and
begins anew.

This process supervises and keeps the standby child; the Celery consumer that hears messages is a
process beside it (`worker.bell`). Neither Celery nor Redis can hold up a job, or reach one."""

import signal
import threading
import time
from dataclasses import replace

import structlog
from sqlalchemy.exc import SQLAlchemyError

from services.jobs import job_keys, lifecycle
from services.jobs.lifecycle import Claim
from shared.postgres.database import Database, make_engine
from shared.scratch import scratch_folder
from shared.settings import Settings, get_settings
from shared.telemetry import configure_logging
from worker.bell import Bell
from worker.presence import WorkerPresence
from worker.runner import Supervisor
from worker.standby import Standby
from worker.wakeups import Heard, WakeUps

log = structlog.get_logger()

LONGEST_PAUSE_SECONDS = 10.0
"""Between two looks while Postgres does not answer."""


class Worker:
    """One worker: a standby child, a doorbell, and a loop that runs jobs one after another."""

    def __init__(self, settings: Settings, database: Database, standby: Standby) -> None:
        self._settings, self._database, self._standby = settings, database, standby
        self._bell = Bell(settings)
        self._wakeups = WakeUps(self._bell, settings)
        self._presence = WorkerPresence(database, settings, standby, self._bell)
        self._stopping = threading.Event()

    def stop(self, *_: object) -> None:
        """End soon: a running job is queued again at once, its attempt does not count. A signal
        handler may call it.
        """
        self._stopping.set()
        self._standby.stop()
        self._bell.stop()
        self._wakeups.nudge()

    def run(self) -> None:
        """Run jobs until `stop` is called."""
        self._standby.start()
        self._bell.start()
        log.info("worker.started", worker_id=self._presence.id)
        try:
            self._loop()
        finally:
            self._presence.leave()
            self._wakeups.close()
            log.info("worker.stopped")

    def _loop(self) -> None:
        heard, idle_since = Heard.NOTHING, time.monotonic()
        pause = 0.1
        while not self._stopping.is_set():
            rung = self._bell.take()
            try:
                self._presence.beat()
                claim = self._claim()
                pause = 0.1
            except SQLAlchemyError as error:
                log.warning("worker.database_unavailable", error=str(error), retry_seconds=pause)
                self._stopping.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
                continue
            if claim is not None:
                self._tell(claim, Heard.MESSAGE if rung else heard, time.monotonic() - idle_since)
                self._supervise(claim)
                heard, idle_since = Heard.NOTHING, time.monotonic()
            if rung:
                self._bell.looked()
            if claim is None:
                heard = self._wakeups.wait()

    def _claim(self) -> Claim | None:
        settings = self._settings
        with self._database.transaction() as session:
            claim = lifecycle.claim_next(
                session, self._presence.owner, settings.lease_seconds, settings.tenant_weights
            )
            if claim is None:
                return None
            return replace(claim, spec=job_keys.with_key(session, claim.spec, settings))

    def _tell(self, claim: Claim, heard: Heard, idle_seconds: float) -> None:
        job = {
            "job_id": claim.spec.job_id,
            "attempt": claim.attempt,
            "waited_seconds": round(claim.waited_seconds, 2),
        }
        log.info("job.claimed", heard=heard, **job)
        if heard is Heard.NOTHING and claim.attempt == 1 and claim.waited_seconds < idle_seconds:
            log.warning("doorbell.job_unannounced", **job)

    def _supervise(self, claim: Claim) -> None:
        with (
            structlog.contextvars.bound_contextvars(
                job_id=claim.spec.job_id, attempt=claim.attempt
            ),
            self._presence.busy(claim.spec.job_id),
        ):
            supervisor = Supervisor(
                claim,
                self._presence.owner,
                self._database,
                self._settings,
                self._stopping,
                self._presence.beat,
            )
            supervisor.run(self._standby.path)


def main() -> None:
    """Run a worker until it is told to stop. SIGTERM, SIGINT and SIGQUIT queue a running job
    again at once.
    """
    settings = get_settings()
    configure_logging(settings)
    engine = make_engine(settings)
    with scratch_folder("worker") as scratch:
        standby = Standby(settings, settings.runtime_dir or scratch, scratch)
        worker = Worker(settings, Database(engine), standby)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, worker.stop)
        try:
            worker.run()
        finally:
            worker.stop()
            standby.remove()
            engine.dispose()
