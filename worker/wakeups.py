"""What wakes an idle worker: a message, a call of Postgres, or the clock. It never depends on
any one of them.
"""

import select
import socket
import time
from contextlib import suppress
from enum import StrEnum

import psycopg
import structlog

from shared.postgres.database import OUTBOX_CHANNEL, PATIENCE
from shared.settings import Settings
from worker.bell import Bell

log = structlog.get_logger()


class Heard(StrEnum):
    """What a worker woke up for."""

    MESSAGE = "message"
    """On the queue."""
    NOTIFICATION = "notification"
    """Of Postgres: a job was committed just now."""
    NOTHING = "nothing"
    """It looks by itself, every `look_seconds`."""


class WakeUps:
    """Waits for whatever comes first. One thread waits; others, and signal handlers, may call
    `nudge`.
    """

    def __init__(self, bell: Bell, settings: Settings) -> None:
        self._bell, self._look_seconds = bell, settings.look_seconds
        self._url = settings.sqlalchemy_url().replace("postgresql+psycopg://", "postgresql://")
        self._listener: psycopg.Connection | None = None
        self._nudged, self._nudge = socket.socketpair()
        self._nudge.setblocking(False)

    def wait(self) -> Heard:
        """Wait for something that may mean work, for `look_seconds` at most."""
        until = time.monotonic() + self._look_seconds
        if self._listen():
            return Heard.NOTHING  # what was committed before it listened, nobody will call out
        if self._notified():
            return Heard.NOTIFICATION
        sources: list[Bell | socket.socket | psycopg.Connection] = [self._bell, self._nudged]
        if self._listener is not None:
            sources.append(self._listener)
        select.select(sources, [], [], max(0.0, until - time.monotonic()))
        with suppress(BlockingIOError):
            self._nudged.recv(1024, socket.MSG_DONTWAIT)
        if self._bell.take():
            return Heard.MESSAGE
        return Heard.NOTIFICATION if self._notified() else Heard.NOTHING

    def nudge(self) -> None:
        """End the present wait, or the next one."""
        with suppress(BlockingIOError):
            self._nudge.send(b"n")

    def close(self) -> None:
        """Close the connection to Postgres."""
        if self._listener is not None:
            self._listener.close()

    def _listen(self) -> bool:
        """Listen to Postgres; True if that begins only now. Where Postgres does not answer, the
        clock is left.
        """
        if self._listener is not None:
            return False
        try:
            listener = psycopg.connect(
                self._url, autocommit=True, connect_timeout=5, application_name="efface", **PATIENCE
            )
            listener.execute(f"LISTEN {OUTBOX_CHANNEL}")
            self._listener = listener
        except psycopg.Error as error:
            log.warning("worker.database_unavailable", error=str(error))
            return False
        return True

    def _notified(self) -> bool:
        """Take what Postgres has called, and return whether there was anything."""
        if self._listener is None:
            return False
        try:
            return bool(list(self._listener.notifies(timeout=0)))
        except psycopg.Error:
            self._listener.close()
            self._listener = None
            return True  # nobody knows what was missed
