"""Supervises one job: claims it, hands it to the standby child, keeps the lease, writes progress,
commits the end.

One loop, no threads. Whatever happens to the database for a while, the child works on until the
lease would have run out."""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import psutil
import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from services.catalog import datasets
from services.jobs import lifecycle
from services.jobs.lifecycle import Claim, Lease, Step
from services.purging import job_leftovers
from shared.errors import EffaceError
from shared.postgres.database import Database
from shared.schemas.job import JobError
from shared.schemas.result import PipelineResult
from shared.settings import Settings
from shared.states import Stage
from worker.protocol import Lines, Message

T = TypeVar("T")

FLUSH_SECONDS = 0.5
START_SECONDS = 300.0
"""A child must take the job within this time: enough for the imports on a slow disk."""
DEATH_SECONDS = 5.0

log = structlog.get_logger()


class Supervisor:
    """One claimed job and the child that works on it."""

    def __init__(
        self,
        claim: Claim,
        owner: str,
        database: Database,
        settings: Settings,
        stopping: threading.Event,
        beat: Callable[[], None],
    ) -> None:
        """Take a claimed job; `stopping` is set when it must be given back, `beat` is called
        while all is well.
        """
        self._spec, self._attempt, self._owner = claim.spec, claim.attempt, owner
        self._database, self._settings, self._stopping, self._show_life = (
            database,
            settings,
            stopping,
            beat,
        )
        self._child: int | None = None
        self._lost: str | None = None
        self._steps: list[Step] = []
        self._progress: float | None = None
        now = self._begin = time.monotonic()
        self._lease_ends = now + settings.lease_seconds
        self._job_ends = now + settings.job_seconds
        self._start_ends = now + START_SECONDS
        self._next_beat = now + settings.heartbeat_seconds
        self._next_flush = now + FLUSH_SECONDS

    def run(self, socket_path: Path) -> None:
        """Connect, follow the child, and leave neither the job nor the child behind."""
        connection = socket.socket(socket.AF_UNIX)
        lines = Lines(connection)
        try:
            spec = datasets.with_opened_keys(self._spec, self._settings)
            connection.connect(str(socket_path))
            job = {
                "type": "job",
                "spec": spec.model_dump(mode="json"),
                "lease_seconds": self._settings.lease_seconds,
            }
            lines.send(job)
            end = self._follow(lines)
        except EffaceError as error:
            end = self._give_back(error.detail, error.code)
        except OSError as error:
            end = self._give_back(f"the standby child could not be reached ({error})")
        finally:
            self._kill()
            lines.close()
        self._commit(end)

    def _follow(self, lines: Lines) -> Callable[[Session], bool] | None:
        """Read the child until something ends the run; return how to commit that, None if the
        job is no longer ours.
        """
        while True:
            messages = lines.receive(
                max(0.01, min(self._next_beat, self._next_flush) - time.monotonic())
            )
            if messages is None:
                self._flush()
                return self._give_back("its process ended")
            for message in messages:
                if (end := self._take(message)) is not None:
                    self._flush()
                    return end
            now = time.monotonic()
            if now >= self._next_flush:
                self._flush()
            if self._stopping.is_set():
                return self._give_back("its worker was stopped")
            if self._child is None and now >= self._start_ends:
                return self._give_back("no child process took it; the worker's log says why")
            if now >= self._job_ends:
                return self._fail(
                    f"The job ran longer than {self._settings.job_seconds:g} s.", "time_limit"
                )
            if now >= self._next_beat:
                lease = self._beat(lines)
                if lease is Lease.CANCEL:
                    return lambda session: lifecycle.confirm_cancel(
                        session, self._spec.job_id, self._attempt
                    )
                if lease is Lease.LOST:
                    log.warning("job.lease_lost")
                    return None

    def _take(self, message: Message) -> Callable[[Session], bool] | None:
        """Handle one message; return how to commit the end if it is the last."""
        match message["type"]:
            case "hello":
                self._child = message["pid"]
            case "stage":
                self._flush()
                stage = Stage(message["stage"])
                self._write(
                    lambda s: lifecycle.enter_stage(s, self._spec.job_id, self._attempt, stage)
                )
            case "step":
                self._steps.append(
                    Step(Stage(message["stage"]), message["step"], message["metrics"])
                )
                if message["total"]:
                    self._progress = min(1.0, message["step"] / message["total"])
            case "result":
                result = PipelineResult.model_validate(message["result"])
                return lambda session: lifecycle.complete(
                    session, self._spec.job_id, self._attempt, result
                )
            case "error":
                error = JobError.model_validate(message["error"])
                self._lost = error.message
                commit = lifecycle.fail if message["final"] else lifecycle.give_back
                return lambda session: commit(session, self._spec.job_id, self._attempt, error)
        return None

    def _beat(self, lines: Lines) -> Lease:
        """Renew the lease and tell the child that we live. A silent database is no verdict
        before the lease ends.
        """
        self._next_beat = time.monotonic() + self._settings.heartbeat_seconds
        self._show_life()
        asked = time.monotonic()
        lease = self._write(
            lambda s: lifecycle.renew(
                s, self._spec.job_id, self._attempt, self._owner, self._settings.lease_seconds
            )
        )
        if lease is None:
            return Lease.LOST if time.monotonic() > self._lease_ends else Lease.HELD
        self._lease_ends = asked + self._settings.lease_seconds
        with suppress(OSError):  # a dead child shows with the next read
            lines.send({"type": "alive"})
        return lease

    def _flush(self) -> None:
        """Write the steps that have come since the last time."""
        self._next_flush = time.monotonic() + FLUSH_SECONDS
        steps, progress, self._steps, self._progress = self._steps, self._progress, [], None
        if steps:
            self._write(
                lambda s: lifecycle.record_steps(
                    s, self._spec.job_id, self._attempt, steps, progress
                )
            )

    def _write(self, work: Callable[[Session], T]) -> T | None:
        """Run one transaction; None if the database does not answer."""
        try:
            with self._database.transaction() as session:
                return work(session)
        except SQLAlchemyError as error:
            log.warning("job.database_unavailable", error=str(error))
            return None

    def _commit(self, end: Callable[[Session], bool] | None) -> None:
        """Commit the end, trying until the lease is over."""
        committed = None
        while end is not None and committed is None and time.monotonic() < self._lease_ends:
            committed = self._write(end)
            if committed is None:
                time.sleep(1.0)
        if committed:
            self._tell()
        else:
            log.warning("job.discarded", committed=False, seconds=self._seconds())
            self._write(lambda session: job_leftovers.sweep_again(session, self._spec.job_id))

    def _tell(self) -> None:
        """Log what became of the job."""
        found = self._write(lambda session: lifecycle.standing(session, self._spec.job_id))
        if found is None or found.state.final:
            what = found._asdict() if found else {}
            log.info("job.ended", committed=True, seconds=self._seconds(), **what)
        elif self._stopping.is_set():
            log.info("job.requeued_by_stop", seconds=self._seconds())
        else:
            log.warning("job.requeued", seconds=self._seconds(), reason=self._lost)

    def _seconds(self) -> float:
        return round(time.monotonic() - self._begin, 1)

    def _give_back(
        self, reason: str, code: str = lifecycle.WORKER_LOST
    ) -> Callable[[Session], bool]:
        counts = not self._stopping.is_set()
        lost = JobError(code=code, message=reason)
        self._lost = reason
        return lambda session: lifecycle.give_back(
            session, self._spec.job_id, self._attempt, lost, counts=counts
        )

    def _fail(self, message: str, code: str) -> Callable[[Session], bool]:
        error = JobError(code=code, message=message)
        return lambda session: lifecycle.fail(session, self._spec.job_id, self._attempt, error)

    def _kill(self) -> None:
        """End the child and all that it started: SIGTERM, grace, SIGKILL."""
        if self._child is None:
            return  # it never said hello; it ends itself when the socket closes
        for number, seconds in (
            (signal.SIGTERM, self._settings.kill_grace_seconds),
            (signal.SIGKILL, DEATH_SECONDS),
        ):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._child, number)
            deadline = time.monotonic() + seconds
            while _group_lives(self._child):
                if time.monotonic() > deadline:
                    break
                time.sleep(0.02)
            else:
                return


def _group_lives(group: int) -> bool:
    """True while a process of the group runs. One that is dead but not yet reaped by its parent
    does not.
    """
    for process in psutil.process_iter(["status"]):
        with suppress(ProcessLookupError):
            if os.getpgid(process.pid) == group and process.info["status"] != psutil.STATUS_ZOMBIE:
                return True
    return False
