"""Keeps one child waiting, its imports done, so that a job pays for none of them."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import structlog

from shared.settings import Settings
from worker.child import CONFINED, TAKEN
from worker.environment import child_environment

log = structlog.get_logger()

RESPAWN_SECONDS = 5.0
"""A child that dies before it has a job is followed by another no sooner than this after it was
started.
"""
IMPORT_NICENESS = 10
"""Of a child that starts while another one works."""


class Standby:
    """Owns the listening socket and the children that inherit it.

    The supervisor connects to `path`; the kernel holds the connection until a child accepts it,
    so a job may come before a child is ready."""

    def __init__(self, settings: Settings, folder: Path, scratch: Path) -> None:
        """Listen in `folder`; give each child a folder below `scratch` for its temporary files,
        deleted when it ends.
        """
        self._environment = child_environment(settings)
        self._scratch = scratch
        self.isolation: str | None = None
        """How far the last child could be confined (`worker.confinement`); None before there was
        one.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"standby-{os.getpid()}.sock"
        self.remove()  # of an earlier process with this id, as in a container that was restarted
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen(8)
        self._children: list[subprocess.Popen[str]] = []
        self._folders: dict[int, str] = {}
        self._lock = threading.RLock()  # `stop` may be called by a signal handler while it runs
        self._stop = threading.Event()

    def start(self) -> None:
        """Start the first child."""
        threading.Thread(target=self._keep, name="standby", daemon=True).start()

    def stop(self) -> None:
        """End every child, with all that it started."""
        self._stop.set()
        with self._lock:
            for child in self._children:
                if child.poll() is None:
                    os.killpg(child.pid, signal.SIGKILL)

    def remove(self) -> None:
        """Delete the socket; for the very end."""
        self.path.unlink(missing_ok=True)

    def _keep(self) -> None:
        while not self._stop.is_set():
            started = time.monotonic()
            child = self._spawn()
            if child is None:
                return
            if not self._taken(child) and not self._stop.is_set():
                log.error(
                    "standby.died",
                    exit_code=child.poll(),
                    seconds=round(time.monotonic() - started, 1),
                )
                self._stop.wait(started + RESPAWN_SECONDS - time.monotonic())

    def _spawn(self) -> subprocess.Popen[str] | None:
        with self._lock:
            if self._stop.is_set():
                return None
            self._children = [child for child in self._children if child.poll() is None]
            descriptor = self._listener.fileno()
            arguments = (descriptor, os.getpid(), IMPORT_NICENESS if self._children else 0)
            scratch = tempfile.mkdtemp(prefix="child-", dir=self._scratch)
            child = subprocess.Popen(
                [sys.executable, "-m", "worker.child", *map(str, arguments)],
                pass_fds=(descriptor,),
                env=self._environment | {"TMPDIR": scratch},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                text=True,
                errors="replace",  # libraries print what they like
                start_new_session=True,
            )
            self._children.append(child)
            self._folders[child.pid] = scratch
        return child

    def _taken(self, child: subprocess.Popen[str]) -> bool:
        """Wait until the child has a job (True) or is dead; go on reading, so that it never
        blocks on its output.
        """
        for line in child.stdout or ():
            if line.startswith(CONFINED):
                self._confined(line.removeprefix(CONFINED).strip())
            if line.strip() == TAKEN:
                threading.Thread(target=self._drain, args=(child,), daemon=True).start()
                return True
        self._reap(child)
        return False

    def _confined(self, how: str) -> None:
        if how != self.isolation:
            log.info("standby.confined", isolation=how)
        self.isolation = how

    def _drain(self, child: subprocess.Popen[str]) -> None:
        for _ in child.stdout or ():
            pass
        self._reap(child)

    def _reap(self, child: subprocess.Popen[str]) -> None:
        """Wait for its end, so that nobody takes it for alive, and delete what it left."""
        child.wait()
        shutil.rmtree(self._folders.pop(child.pid), ignore_errors=True)
