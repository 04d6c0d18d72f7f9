"""Keeps the worker's Celery consumer (`worker.listener`), and makes it anew where it is deaf.

A consumer that Redis has dropped once may never ask it for messages again, without a word. From
outside that shows: messages lie in Redis and an idle consumer takes none."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import NamedTuple

import structlog

from shared.ports.queue import Doorbell, make_queue
from shared.settings import Settings
from shared.states import DoorbellState
from worker.listener import LOOKED

log = structlog.get_logger()

PROBE_SECONDS = 2.0
SILENT_SECONDS = 10.0
"""Messages that lie in Redis for so long beside a listener that holds none mean that it is deaf."""
START_SECONDS = 30.0
"""A listener that was just started is given so long to take its first message; twice as long
after each that took none.
"""
LONGEST_START_SECONDS = 600.0
RESTART_SECONDS = (1.0, 60.0)
"""The first and the longest pause between two starts of a listener that ends by itself."""


class Report(NamedTuple):
    """How the doorbell is."""

    state: DoorbellState
    renewals: int
    """How often the listener was made anew since the worker started."""


class Bell:
    """Where messages come in. The thread that runs jobs reads `socket`; another one keeps the
    listener.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        silent_seconds: float = SILENT_SECONDS,
        start_seconds: float = START_SECONDS,
    ) -> None:
        self._doorbell = Doorbell(make_queue(settings))
        self._environment = os.environ | {
            "EFFACE_REDIS_URL": settings.redis_url.get_secret_value(),
            "EFFACE_LOG_LEVEL": settings.log_level,
            "EFFACE_LOG_FORMAT": settings.log_format,
        }
        self._silent_seconds, self._start_seconds = silent_seconds, start_seconds
        self._grace = start_seconds
        self._lock = threading.RLock()  # `stop` may be called by a signal handler while it is held
        self._stop = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket, self._far = socket.socketpair()
        self._rung_at = self._started_at = time.monotonic()
        self._lying_since: float | None = None
        self._pause = RESTART_SECONDS[0]
        self._state, self._renewals = DoorbellState.HEARD, 0

    def start(self) -> None:
        """Start the listener and watch over it."""
        self._renew()
        threading.Thread(target=self._watch, name="bell", daemon=True).start()

    def stop(self) -> None:
        """End the listener. It holds nothing that is worth a farewell."""
        self._stop.set()
        with self._lock:
            self._kill()

    def fileno(self) -> int:
        """Return what to wait on: it can be read when a message has come."""
        return self._socket.fileno()

    def take(self) -> bool:
        """Return True if a message has come that `looked` has not answered yet. Never waits."""
        with self._lock, suppress(BlockingIOError):
            if self._socket.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK):
                self._heard()
                return True
        return False

    def looked(self) -> None:
        """Let the listener take another message; for a worker that has looked for work since
        `take` told it of this one.
        """
        with self._lock, suppress(OSError):
            if self._socket.recv(1, socket.MSG_DONTWAIT):
                self._socket.send(LOOKED)

    def report(self) -> Report:
        """Return how the doorbell is."""
        return Report(self._state, self._renewals)

    def _heard(self) -> None:
        self._rung_at, self._lying_since = time.monotonic(), None
        self._pause, self._grace = RESTART_SECONDS[0], self._start_seconds
        if self._state is not DoorbellState.HEARD:
            log.info("doorbell.heard")
        self._state = DoorbellState.HEARD

    def _watch(self) -> None:
        while not self._stop.wait(PROBE_SECONDS):
            if self._process is None or self._process.poll() is not None:
                self._revive()
                continue
            messages = self._messages()
            if messages is not None and not self.take():
                self._judge(messages)

    def _messages(self) -> int | None:
        """Return how many messages lie in Redis; None where it does not answer."""
        try:
            messages = self._doorbell.length()
        except (
            Exception
        ) as error:  # whatever the broker's client raises: Redis is away, which costs nobody a job
            if self._state is not DoorbellState.AWAY:
                log.warning("doorbell.redis_away", error=str(error))
            self._state, self._lying_since = DoorbellState.AWAY, None
            return None
        if self._state is DoorbellState.AWAY:
            log.info("doorbell.redis_back")
            self._state = DoorbellState.HEARD
        return messages

    def _judge(self, messages: int) -> None:
        """Make the listener anew if messages have lain there for long enough and it took none of
        them.
        """
        now = time.monotonic()
        if not messages:
            self._lying_since = None
        elif self._lying_since is None:
            self._lying_since = now
        lain = 0.0 if self._lying_since is None else now - max(self._lying_since, self._rung_at)
        if lain > self._silent_seconds and now - self._started_at > self._grace:
            log.warning("doorbell.silent", messages=messages, seconds=round(lain, 1))
            self._state = DoorbellState.SILENT
            self._renewals += 1
            self._grace = min(2 * self._grace, LONGEST_START_SECONDS)
            self._renew()

    def _revive(self) -> None:
        """Start the listener again that has ended by itself; at growing intervals."""
        code = None if self._process is None else self._process.returncode
        log.warning("doorbell.ended", exit_code=code, restart_seconds=self._pause)
        self._state, self._renewals = DoorbellState.SILENT, self._renewals + 1
        if not self._stop.wait(self._pause):
            self._pause = min(2 * self._pause, RESTART_SECONDS[1])
            self._renew()

    def _renew(self) -> None:
        with self._lock:
            self._kill()
            if self._stop.is_set():
                return
            with suppress(
                BlockingIOError
            ):  # what the old one has rung was looked after, or will be at the next look
                while self._socket.recv(1024, socket.MSG_DONTWAIT):
                    pass
            with suppress(BlockingIOError):  # nor must the new one hear the answer to it
                while self._far.recv(1024, socket.MSG_DONTWAIT):
                    pass
            descriptor = self._far.fileno()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "worker.listener", str(descriptor), str(os.getpid())],
                pass_fds=(descriptor,),
                env=self._environment,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # a Ctrl-C in the terminal is for the worker
            )
            self._started_at, self._lying_since = time.monotonic(), None

    def _kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGKILL)
            self._process.wait()
