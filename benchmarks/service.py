"""Starts `efface up` for a benchmark and stops it again."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

EFFACE = str(Path(sys.executable).parent / "efface")
UNLIMITED = {"EFFACE_RATE_LIMIT_REQUESTS": "0", "EFFACE_MAX_UNFINISHED_JOBS": "0"}
"""A benchmark asks for more than one tenant may."""


@dataclass(frozen=True)
class Service:
    """A running service."""

    url: str
    key: str
    home: Path

    def client(self) -> httpx.Client:
        """Return an HTTP client that is signed in."""
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {self.key}"}, timeout=60)

    def environment(self) -> dict[str, str]:
        """Return the environment in which `efface` finds this service."""
        return os.environ | {"EFFACE_URL": self.url, "EFFACE_API_KEY": self.key}


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def efface_up() -> Iterator[Service]:
    """Run the whole service in a temporary home until the block ends."""
    with tempfile.TemporaryDirectory(prefix="efface-bench-") as folder:
        home, port = Path(folder), free_port()
        url = f"http://127.0.0.1:{port}"
        command = [EFFACE, "up", "--home", folder, "--port", str(port)]
        process = subprocess.Popen(command, env=os.environ | UNLIMITED, stdout=subprocess.DEVNULL)
        try:
            wait_until_ready(url, home, process)
            yield Service(url, (home / "key").read_text().strip(), home)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def wait_until_ready(url: str, home: Path, process: subprocess.Popen[bytes], seconds: float = 120) -> None:
    """Return once the service answers that it is ready and its key is on disk."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"{url}/health/ready").status_code == 200 and (home / "key").exists():
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise SystemExit("efface up did not become ready; see its output above")


DEMO_MODEL = Path(__file__).parent.parent / "api" / "demo" / "model"


def demo_request(model_id: str) -> dict[str, object]:
    """Return a class erasure from names alone, on the demo's model."""
    return {
        "model": {"id": model_id},
        "target": {"type": "class", "class": "fish", "labels": ["fish", "house", "tree", "car"]},
        "method": {"name": "synthetic"},
    }


def add_demo_model(service: Service) -> str:
    """Register the demo's model through the command line and return its id."""
    command = [EFFACE, "models", "add", str(DEMO_MODEL), "--name", "demo"]
    done = subprocess.run(command, env=service.environment(), check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.split()[0]
