"""Child processes that are kept running, and none of which is left behind."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import structlog

FIRST_DELAY_SECONDS = 1.0
LONGEST_DELAY_SECONDS = 30.0
HEALTHY_SECONDS = 60.0

log = structlog.get_logger()


@dataclass
class Child:
    """One command that should always run; its output goes to `log_file`.

    It leads a session of its own, so that Ctrl-C in the terminal reaches the parent alone, which then stops its
    children in order.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log_file: Path
    _process: subprocess.Popen[bytes] | None = None
    _started: float = 0.0
    _delay: float = field(default=FIRST_DELAY_SECONDS)

    def start(self) -> None:
        """Start the command."""
        with self.log_file.open("ab") as output:
            self._process = subprocess.Popen(
                self.command,
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._started = time.monotonic()

    @property
    def exit_code(self) -> int | None:
        """How the process ended; None while it runs."""
        return None if self._process is None else self._process.poll()

    def revive(self) -> None:
        """Start the command again if it has ended, at growing intervals while it keeps ending at once."""
        if self.exit_code is None:
            return
        ran = time.monotonic() - self._started
        if ran > HEALTHY_SECONDS:
            self._delay = FIRST_DELAY_SECONDS
        if ran >= self._delay:
            log.warning("child.restarted", child=self.name, exit_code=self.exit_code, log=str(self.log_file))
            self._delay = min(2 * self._delay, LONGEST_DELAY_SECONDS)
            self.start()

    def signal(self, number: int) -> None:
        """Send a signal to the process, if it still runs."""
        if self._process is not None and self.exit_code is None:
            self._process.send_signal(number)

    def family(self) -> list[psutil.Process]:
        """Return the process and all that it started, in whatever group or session they are."""
        if self._process is None:
            return []
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(self._process.pid)
            return [process, *process.children(recursive=True)]
        return []


def stop(children: Sequence[Child], grace_seconds: float, impatient: "Impatience") -> None:
    """End every child and all that it started: SIGTERM, `grace_seconds` or a second Ctrl-C, then SIGKILL."""
    families = [member for child in children for member in child.family()]
    for child in children:
        child.signal(signal.SIGTERM)
    deadline = time.monotonic() + grace_seconds
    while any(child.exit_code is None for child in children):
        if impatient or time.monotonic() > deadline:
            break
        time.sleep(0.05)
    for member in families:
        with suppress(psutil.NoSuchProcess):
            member.kill()  # psutil compares the start time: a reused process id is safe
    psutil.wait_procs(families, timeout=5)


class Impatience:
    """True once SIGINT or SIGTERM has come for a second time; `asked` after the first."""

    def __init__(self) -> None:
        self._signals = 0

    def install(self) -> None:
        """Take SIGINT and SIGTERM over."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: self._count())

    def _count(self) -> None:
        self._signals += 1

    @property
    def asked(self) -> bool:
        """True once the end was asked for."""
        return self._signals > 0

    def __bool__(self) -> bool:
        return self._signals > 1
