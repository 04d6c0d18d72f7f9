"""Child processes that are kept running, and none of which is left behind."""

import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

import psutil
import structlog

from shared.ports.embedded_servers import die_with_us

FIRST_DELAY_SECONDS = 1.0
LONGEST_DELAY_SECONDS = 30.0
STEADY_SECONDS = 60.0
"""Who ran this long is started again at once."""
KILL_SECONDS = 5.0

log = structlog.get_logger()


class Child:
    """One command that should always run; its output goes to `log_file`.

    It leads a session of its own, so that Ctrl-C in a terminal reaches the parent alone, which
    then stops its children in order. Should the parent be killed, Linux ends the child."""

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], log_file: Path
    ) -> None:
        self.name = name
        self.log_file = log_file
        self._command = command
        self._environment = dict(environment)
        self._delay = FIRST_DELAY_SECONDS
        self._start()

    def _start(self) -> None:
        with self.log_file.open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_us(signal.SIGTERM),
            )
        self._started = time.monotonic()

    @property
    def runs(self) -> bool:
        """True while the process lives."""
        return self._process.poll() is None

    def listens(self, port: int) -> bool:
        """True if it is this process that takes connections on a TCP port."""
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            connections = psutil.Process(self._process.pid).net_connections("tcp")
            return any(c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in connections)
        return False

    def revive(self) -> None:
        """Start the command again if it has ended; at growing intervals where it ends again and
        again.
        """
        if self.runs:
            return
        ran = time.monotonic() - self._started
        if ran > STEADY_SECONDS:
            self._delay = FIRST_DELAY_SECONDS
        if ran > self._delay:
            log.warning(
                "child.restarted",
                child=self.name,
                exit_code=self._process.returncode,
                log=str(self.log_file),
            )
            self._delay = min(2 * self._delay, LONGEST_DELAY_SECONDS)
            self._start()

    def terminate(self) -> None:
        """Ask the process to end."""
        self._process.terminate()

    def family(self) -> list[psutil.Process]:
        """Return the process and all that it started, in whatever group or session they are."""
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(self._process.pid)
            return [process, *process.children(recursive=True)]
        return []


class Ending:
    """The end, asked for by SIGINT, SIGTERM or SIGHUP: the first is a KeyboardInterrupt, a
    second one impatience.
    """

    def __init__(self) -> None:
        self._signals = 0

    def listen(self) -> None:
        """Take the signals over, for the rest of this process."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._count)

    def _count(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - as signal wants it
        self._signals += 1
        if self._signals == 1:  # later ones must not interrupt the clean-up
            raise KeyboardInterrupt

    @property
    def at_once(self) -> bool:
        """True after the second signal."""
        return self._signals > 1


def stop(children: Sequence[Child], grace_seconds: float, ending: Ending) -> None:
    """End every child and all that it started: SIGTERM, then SIGKILL after `grace_seconds` or a
    second signal to us.
    """
    families = [member for child in children for member in child.family()]
    for child in children:
        child.terminate()
    deadline = time.monotonic() + grace_seconds
    while (
        any(child.runs for child in children) and time.monotonic() < deadline and not ending.at_once
    ):
        time.sleep(0.05)
    for member in families:
        with suppress(psutil.NoSuchProcess):
            member.kill()  # psutil compares the start time: a process id that was reused is safe
    psutil.wait_procs(families, timeout=KILL_SECONDS)
