"""A worker shows that it lives: its row says what it does, on what device, how confined, and how
its doorbell is.
"""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version

import structlog
from sqlalchemy.exc import SQLAlchemyError

from services.fleet import processes
from services.fleet.processes import BEAT_SECONDS, Sign
from shared.ids import new_id
from shared.postgres.database import Database
from shared.settings import Settings
from shared.states import ProcessKind
from worker.bell import Bell
from worker.standby import Standby

log = structlog.get_logger()


class WorkerPresence:
    """The row of this worker. The loop that runs jobs writes it itself: a sign of life from a
    thread would prove nothing.
    """

    def __init__(
        self, database: Database, settings: Settings, standby: Standby, bell: Bell
    ) -> None:
        self.id = new_id("wkr")
        self.owner = f"{socket.gethostname()}:{os.getpid()}"
        self._database, self._settings, self._standby, self._bell = (
            database,
            settings,
            standby,
            bell,
        )
        self._job_id: str | None = None
        self._next = 0.0

    def beat(self, *, now: bool = False) -> None:
        """Show life, unless that was done a moment ago. A database that does not answer is no
        trouble here.
        """
        if not now and time.monotonic() < self._next:
            return
        self._next = time.monotonic() + BEAT_SECONDS
        try:
            with self._database.transaction() as session:
                processes.beat(session, self._sign())
        except SQLAlchemyError as error:
            log.debug("worker.beat_failed", error=str(error))

    @contextmanager
    def busy(self, job_id: str) -> Iterator[None]:
        """Say what is worked on, while the block lasts."""
        self._job_id = job_id
        self.beat(now=True)
        try:
            yield
        finally:
            self._job_id, self._next = None, 0.0

    def leave(self) -> None:
        """Take leave."""
        try:
            with self._database.transaction() as session:
                processes.leave(session, self.id)
        except SQLAlchemyError as error:
            log.debug("worker.leave_failed", error=str(error))

    def _sign(self) -> Sign:
        doorbell = self._bell.report()
        return Sign(
            id=self.id,
            kind=ProcessKind.WORKER,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=version("efface"),
            job_id=self._job_id,
            facts={
                "device": self._settings.device,
                "isolation": self._standby.isolation,
                "doorbell": doorbell.state,
                "renewals": doorbell.renewals,
            },
        )
