"""Whether a job ever waited beside a worker that had nothing to do: looked at twice a second while the storm rages."""

import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from shared.errors import EffaceError
from shared.postgres.database import Database
from shared.postgres.tables import Job, ServiceProcess
from shared.states import JobState, ProcessKind
from tests.support.dropping import PATIENCE_SECONDS

LOOK_SECONDS = 0.5
LONGEST_LOOK_SECONDS = 1.0
"""What lies between two looks counts as no more: this process may have been held up as well."""


class Stretches:
    """For how long which job has waited beside which idle worker."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[int, str], float] = {}
        self.forgotten: set[str] = set()
        self.longest = 0.0

    def note(self, seconds: float, idle: Collection[int], waiting: Collection[str]) -> None:
        """Take down who idles and what waits, `seconds` after the last look."""
        then, self._seconds = self._seconds, {}
        for worker in idle:
            for job in waiting:
                before = then.get((worker, job))
                stretch = 0.0 if before is None else before + min(seconds, LONGEST_LOOK_SECONDS)
                self._seconds[worker, job] = stretch
                self.longest = max(self.longest, stretch)
                if stretch > PATIENCE_SECONDS:
                    self.forgotten.add(job)

    def forget(self) -> None:
        """Begin anew: what was between now and the last look is not known."""
        self._seconds = {}


class IdleWatch:
    """Looks at the workers and the line of jobs, in a thread."""

    def __init__(self, database: Database, awake: Callable[[], set[int]]) -> None:
        """Make one; `awake` returns the pids of workers that live and are not frozen."""
        self._database, self._awake = database, awake
        self._stop = threading.Event()
        self.stretches = Stretches()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch while the block lasts."""
        thread = threading.Thread(target=self._watch, daemon=True)
        thread.start()
        yield
        self._stop.set()
        thread.join()

    def _watch(self) -> None:
        last = time.monotonic()
        while not self._stop.wait(LOOK_SECONDS):
            now = time.monotonic()
            try:
                self.stretches.note(now - last, *self._look())
            except (SQLAlchemyError, EffaceError, OSError):  # without Postgres nobody can take a job
                self.stretches.forget()
            last = now

    def _look(self) -> tuple[set[int], set[str]]:
        """Return the workers that are up, awake and hold no job, and the jobs that wait."""
        awake = self._awake()
        with self._database.transaction() as session:
            ready = (Job.state == JobState.QUEUED, Job.held_at.is_(None), Job.cancel_requested_at.is_(None))
            waiting = set(session.scalars(select(Job.id).where(*ready)))
            owners = session.scalars(select(Job.lease_owner).where(Job.state == JobState.RUNNING))
            busy = {int(owner.rpartition(":")[2]) for owner in owners if owner}
            up = set(session.scalars(select(ServiceProcess.pid).where(ServiceProcess.kind == ProcessKind.WORKER)))
        return (awake & up) - busy, waiting
