"""Starts `efface up` for a benchmark and stops it again."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
from pydantic import SecretStr

import migrations
from services.access import api_keys
from shared.crypto.opendsr_key import make_self_signed
from shared.ports.embedded_servers import embedded_postgres, embedded_redis
from shared.postgres.database import Database, make_engine
from shared.settings import Settings
from shared.states import Scope

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
        return httpx.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {self.key}"}, timeout=60
        )

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


def wait_until_ready(
    url: str, home: Path, process: subprocess.Popen[bytes], seconds: float = 120
) -> None:
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


FAR = 1_000_000


@contextmanager
def gateway_with_bare_endpoint() -> Iterator[tuple[Service, str]]:
    """Run Postgres, Redis, the gateway and the relay, but no worker, and `benchmarks.bare` on the
    same Postgres.

    Yields the service and the URL of the bare endpoint.
    """
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="efface-bench-")))
        port, bare_port = free_port(), free_port()
        database_url = stack.enter_context(embedded_postgres(home / "postgres"))
        settings = Settings(database_url=SecretStr(database_url))
        migrations.upgrade(settings.sqlalchemy_url())
        engine = make_engine(settings)
        with Database(engine).transaction() as session:
            key = api_keys.create(session, tenant="bench", name="bench", scopes=[Scope.ADMIN])[1]
        engine.dispose()
        (home / "key").write_text(key)
        environment = os.environ | {
            "EFFACE_DATABASE_URL": database_url,
            "EFFACE_REDIS_URL": stack.enter_context(embedded_redis(home / "redis")),
            "EFFACE_STORAGE_URL": f"file://{home / 'objects'}",
            "EFFACE_PORT": str(port),
            "EFFACE_MAX_UNFINISHED_JOBS": str(FAR),  # still counted, and never reached
            "EFFACE_RATE_LIMIT_REQUESTS": str(FAR),
        }
        for command in ("api.cli api", "api.cli relay", f"benchmarks.bare {bare_port}"):
            stack.enter_context(
                _running([sys.executable, "-m", *command.split()], environment, home / "log")
            )
        url, bare_url = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{bare_port}"
        wait_until(
            lambda: (
                httpx.get(f"{url}/health/ready").is_success
                and httpx.get(f"{bare_url}/docs").is_success
            )
        )
        yield Service(url, key, home), bare_url


@contextmanager
def gateway_alone(**changes: str) -> Iterator[tuple[Service, Database, int]]:
    """Run Postgres, Redis and the gateway, with these settings changed; yields its process id,
    too.
    """
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="efface-bench-")))
        database_url = stack.enter_context(embedded_postgres(home / "postgres"))
        settings = Settings(database_url=SecretStr(database_url))
        migrations.upgrade(settings.sqlalchemy_url())
        engine = make_engine(settings)
        stack.callback(engine.dispose)
        with Database(engine).transaction() as session:
            key = api_keys.create(session, tenant="bench", name="bench", scopes=[Scope.ADMIN])[1]
        port = free_port()
        processor_key, certificate = make_self_signed(home / "opendsr", "opendsr.example.com")
        environment = os.environ | {
            "EFFACE_DATABASE_URL": database_url,
            "EFFACE_REDIS_URL": stack.enter_context(embedded_redis(home / "redis")),
            "EFFACE_STORAGE_URL": f"file://{home / 'objects'}",
            "EFFACE_OPENDSR_KEY_FILE": str(processor_key),
            "EFFACE_OPENDSR_CERTIFICATE_FILE": str(certificate),
            "EFFACE_PORT": str(port),
            **UNLIMITED,
            **changes,
        }
        command = [sys.executable, "-m", "api.cli", "api"]
        process_id = stack.enter_context(_running(command, environment, home / "log"))
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: httpx.get(f"{url}/health/ready").is_success)
        yield Service(url, key, home), Database(engine), process_id


@contextmanager
def _running(command: list[str], environment: dict[str, str], log: Path) -> Iterator[int]:
    with log.open("ab") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait(60)


def wait_until(condition: Callable[[], bool], seconds: float = 120) -> None:
    """Return once `condition` holds; what does not answer yet is waited for."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(httpx.TransportError):
            if condition():
                return
        time.sleep(0.2)
    raise SystemExit(f"not ready after {seconds:g} s")


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
    done = subprocess.run(
        command, env=service.environment(), check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout.split()[0]
