"""`efface up`: everything starts, mends itself, keeps its state, and leaves nothing behind however it ends."""

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import psutil
import pytest

from api.processes import Child
from api.stack import _wait_until_ready
from shared.crypto.certificate_keys import KeyFolder
from shared.errors import Conflict

DEADLINE_SECONDS = 90


def efface(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command."""
    command = [sys.executable, "-m", "api.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_SECONDS)


def wait_for(what, *arguments):
    """Return the first true answer."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not (answer := what(*arguments)):
        assert time.monotonic() < deadline, f"waited in vain for {what.__name__}"
        time.sleep(0.05)
    return answer


class Up:
    """A running `efface up`."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.output = home / "output.txt"
        home.mkdir(exist_ok=True)
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        with self.output.open("w") as output:
            command = [sys.executable, "-m", "api.cli", "up", "--home", str(home / "efface"), "--port", "0"]
            self.process = psutil.Popen(command, stdout=output, stderr=output, env=environment)
        self.url = wait_for(self._url)
        self.family = [self.process, *self.process.children(recursive=True)]

    def _url(self) -> str | None:
        assert self.process.poll() is None, self.output.read_text()
        words = self.output.read_text().split()
        return next((word.rstrip(";") for word in words if word.startswith("http://")), None)

    @property
    def key(self) -> str:
        return (self.home / "efface" / "key").read_text().strip()

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, headers={"Authorization": f"Bearer {self.key}"})

    def child(self, name: str) -> psutil.Process | None:
        living = (p for p in self.process.children() if p.status() != psutil.STATUS_ZOMBIE)
        return next((p for p in living if p.cmdline()[-1:] == [name]), None)

    def alive(self) -> list[psutil.Process]:
        return [p for p in self.family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture
def up(tmp_path):
    """Starts services, and kills what a failed test leaves."""
    started = []

    def start() -> Up:
        started.append(Up(tmp_path))
        return started[-1]

    yield start
    for service in started:
        for process in service.alive():
            process.kill()


def test_from_start_to_restart(up):
    service = up()
    key_file = service.home / "efface" / "key"
    added = httpx.post(
        f"{service.url}/models",
        headers={"Authorization": f"Bearer {service.key}"},
        content=b"x",
        params={"name": "x"},
    )

    assert service.get("/health/ready").status_code == 200
    assert added.status_code == 422  # it is checked by the real thing
    assert service.key not in service.output.read_text()  # which may be kept in a log
    assert stat.S_IMODE(key_file.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE((key_file.parent / "env").stat().st_mode) == 0o600
    listed = efface("keys", "list", "--home", str(key_file.parent))
    assert (listed.returncode, listed.stderr) == (0, "") and "key_" in listed.stdout
    assert efface("audit", "verify", "--home", str(key_file.parent)).returncode == 0

    first = service.child("api")
    first.kill()
    wait_for(lambda: service.child("api") not in (None, first))
    wait_for(lambda: _answers(service.url))
    service.family += service.process.children(recursive=True)

    second = subprocess.run(
        [sys.executable, "-m", "api.cli", "up", "--home", str(service.home / "efface")], capture_output=True, text=True
    )
    assert second.returncode == 1
    assert "choose another --home" in second.stderr

    service.process.send_signal(signal.SIGINT)
    assert service.process.wait(DEADLINE_SECONDS) == 0
    assert wait_for(lambda: not service.alive())

    again = up()
    assert again.key == service.key
    assert again.get("/version").status_code == 200
    assert again.key not in again.output.read_text()
    found = again.get("/opendsr/v2/discovery")
    assert found.headers["X-OpenDSR-Processor-Domain"] == "localhost"
    assert found.json()["processor_certificate"].startswith("http://localhost:")
    signing_key = KeyFolder(service.home / "efface" / "signing").signer().key_id
    assert f"signed with key {signing_key}" in again.output.read_text()
    assert "made now" not in again.output.read_text()
    again.process.send_signal(signal.SIGTERM)
    assert again.process.wait(DEADLINE_SECONDS) == 0
    assert wait_for(lambda: not again.alive())
    stopped = efface("keys", "list", "--home", str(key_file.parent))
    assert (stopped.returncode, stopped.stdout) == (1, "")
    assert stopped.stderr.startswith("efface: No service runs in") and len(stopped.stderr.splitlines()) == 1
    secrets = {"key", "master-key", "audit-key.pem"}
    assert {path.name for path in key_file.parent.iterdir()} == secrets | {
        "lock",
        "logs",
        "objects",
        "opendsr",
        "postgres",
        "redis",
        "signing",
    }
    assert {stat.S_IMODE((key_file.parent / name).stat().st_mode) for name in secrets} == {0o600}


@pytest.mark.parametrize("signals", [[signal.SIGINT, signal.SIGINT], [signal.SIGKILL]], ids=["impatient", "killed"])
def test_nothing_is_left_behind(up, signals):
    service = up()

    for number in signals:
        service.process.send_signal(number)
        time.sleep(0.1)
    service.process.wait(DEADLINE_SECONDS)

    assert wait_for(lambda: not service.alive())


def test_a_taken_port_is_one_line(tmp_path):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "api.cli", "up", "--home", str(tmp_path), "--port", str(port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_SECONDS)

    assert done.returncode == 1
    assert done.stderr.strip() == f"efface: Port {port} is taken; choose another one with --port (0: any)."


def test_another_process_on_the_port_is_not_taken_for_ours(tmp_path):
    """Both answer that they are ready; but ours has ended, because the port was taken between the look and the bind."""
    with neighbour() as port:
        child = Child("api", ["sleep", "1"], {}, tmp_path / "api.log")
        with pytest.raises(Conflict, match=f"Port {port} is taken"):
            _wait_until_ready(f"http://127.0.0.1:{port}", port, (child,))

        assert not child.listens(port)


@contextmanager
def neighbour() -> Iterator[int]:
    class Ready(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Ready) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_address[1]
        server.shutdown()


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/live").is_success
    except httpx.TransportError:
        return False
