"""The whole service on one machine: embedded Postgres and Redis, file storage, the API, a relay
and a worker.
"""

import fcntl
import os
import shutil
import socket
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import httpx
from pydantic import SecretStr

import migrations
from api.processes import Child, Ending, stop
from services.access import api_keys, console_sessions
from services.audit_log import signed_heads
from shared import home as home_file
from shared.crypto.certificate_keys import KeyFolder, new_secret
from shared.crypto.opendsr_key import make_self_signed
from shared.errors import Conflict, Unavailable
from shared.ports.embedded_servers import (
    embedded_postgres,
    embedded_redis,
    free_port,
    private_folder,
)
from shared.postgres.database import Database, make_engine
from shared.settings import Settings
from shared.states import Scope

HOST = "127.0.0.1"
TENANT = "local"
PROCESSOR_DOMAIN = "localhost"
"""Whom the certificate of OpenDSR is made out to; a deployment has one from an authority."""
READY_SECONDS = 120.0
STOP_SECONDS = 20.0
LOOK_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Stack:
    """A service that runs below `home`."""

    home: Path
    url: str
    key: str
    signing_key: str
    """Id of the key that signs certificates."""
    children: tuple[Child, ...]
    settings: Settings

    @property
    def console(self) -> str:
        """Address of the console."""
        return f"{self.url}/console/"

    def sign_in_link(self) -> str:
        """Return a link that signs somebody in to the console, once, with the service's key."""
        return f"{self.console}sign-in?link={_link(self.settings, self.key)}"

    @property
    def key_file(self) -> Path:
        """Where the API key is kept."""
        return key_file(self.home)

    @property
    def signing_dir(self) -> Path:
        """Where the keys of certificates are kept."""
        return signing_dir(self.home)

    def tend(self) -> NoReturn:
        """Start every child again that ends, for ever."""
        while True:
            for child in self.children:
                child.revive()
            time.sleep(LOOK_SECONDS)


def key_file(home: Path) -> Path:
    """Return where the API key of a service is kept."""
    return home / "key"


def signing_dir(home: Path) -> Path:
    """Return where the keys that sign certificates are kept."""
    return home / "signing"


@contextmanager
def running(home: Path, port: int, ending: Ending) -> Iterator[Stack]:
    """Start everything below `home`, wait until it is ready, and stop all of it when the block
    ends.

    What an earlier run left in `home` (jobs, models, data sets, the keys) is there again. Port 0
    takes a free one.

    Raises:
        Conflict: another service uses `home` or the port.
        Unavailable: a part does not start; the message names its log.
    """
    home = home.expanduser().absolute()
    logs = home / "logs"
    private_folder(home)
    for own_folder in (logs, home / "objects"):
        private_folder(own_folder)
    with ExitStack() as stack:
        stack.enter_context(_held(home / "lock"))
        port = port or free_port()
        _check_free(port)
        processor_key, processor_certificate = make_self_signed(home / "opendsr", PROCESSOR_DOMAIN)
        settings = Settings(
            database_url=SecretStr(stack.enter_context(embedded_postgres(home / "postgres"))),
            redis_url=SecretStr(stack.enter_context(embedded_redis(home / "redis"))),
            storage_url=f"file://{home / 'objects'}",
            master_key=SecretStr(
                _kept_secret(home / "master-key", lambda: b64encode(os.urandom(32)).decode())
            ),
            audit_key_file=_audit_key(home / "audit-key.pem"),
            signing_dir=signing_dir(home),
            opendsr_key_file=processor_key,
            opendsr_certificate_file=processor_certificate,
            public_url=f"http://localhost:{port}",
            host=HOST,
            port=port,
        )
        migrations.upgrade(settings.sqlalchemy_url())
        key = _key(settings, key_file(home))
        folder = KeyFolder(settings.signing_dir)
        signing_key = folder.signer().key_id if folder.has_signer else folder.create()
        own = _own_settings(settings)
        told = home_file.write(home, own | {"EFFACE_URL": f"http://{HOST}:{port}"})
        stack.callback(told.unlink, missing_ok=True)
        environment = _environment(
            own,
            scratch=stack.enter_context(_scratch(home / "scratch")),
            runtime=stack.enter_context(tempfile.TemporaryDirectory(prefix="efface-")),
        )
        children = tuple(
            Child(name, [sys.executable, "-m", "api.cli", name], environment, logs / f"{name}.log")
            for name in ("api", "relay", "worker")
        )
        stack.callback(stop, children, STOP_SECONDS, ending)
        url = f"http://{HOST}:{port}"
        _wait_until_ready(url, port, children)
        yield Stack(home, url, key, signing_key, children, settings)


@contextmanager
def _held(path: Path) -> Iterator[None]:
    """Hold a lock file, which the system lets go of however this process ends."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Conflict(
                f"Another 'efface up' runs in {path.parent}; stop it, or choose another --home."
            ) from error
        yield


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # a port that was just let go of is free
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise Conflict(
                f"Port {port} is taken; choose another one with --port (0: any)."
            ) from error


def _key(settings: Settings, path: Path) -> str:
    """Return the key that is kept in `path`; make one at the first start."""

    def made() -> str:
        engine = make_engine(settings)
        with Database(engine).transaction() as session:
            _, key = api_keys.create(session, tenant=TENANT, name="efface up", scopes=[Scope.ADMIN])
        engine.dispose()
        return key

    return _kept_secret(path, made)


def _link(settings: Settings, key: str) -> str:
    engine = make_engine(settings)
    with Database(engine).transaction() as session:
        key_id = api_keys.authenticate(session.connection(), key).key_id
        link = console_sessions.make_link(session, key_id, settings.console_link_seconds)
    engine.dispose()
    return link


def _kept_secret(path: Path, make: Callable[[], str]) -> str:
    """Return the secret that is kept in `path`; make one at the first start, for its owner's
    eyes alone.
    """
    if path.exists():
        return path.read_text().strip()
    secret = make().strip()
    new_secret(path, f"{secret}\n".encode())
    return secret


def _audit_key(path: Path) -> Path:
    _kept_secret(path, signed_heads.new_key)
    return path


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """Give an empty folder for temporary files: what a killed child leaves of uploads and jobs
    is deleted with it.
    """
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed itself
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _own_settings(settings: Settings) -> dict[str, str]:
    """Return where the parts are that were started here, and the keys, as variables."""
    return {
        "EFFACE_DATABASE_URL": settings.database_url.get_secret_value(),
        "EFFACE_REDIS_URL": settings.redis_url.get_secret_value(),
        "EFFACE_STORAGE_URL": settings.storage_url,
        "EFFACE_MASTER_KEY": settings.master_key.get_secret_value() if settings.master_key else "",
        "EFFACE_AUDIT_KEY_FILE": str(settings.audit_key_file),
        "EFFACE_SIGNING_DIR": str(settings.signing_dir),
        "EFFACE_OPENDSR_KEY_FILE": str(settings.opendsr_key_file),
        "EFFACE_OPENDSR_CERTIFICATE_FILE": str(settings.opendsr_certificate_file),
        "EFFACE_PUBLIC_URL": settings.public_url or "",
        "EFFACE_HOST": settings.host,
        "EFFACE_PORT": str(settings.port),
    }


def _environment(own: Mapping[str, str], *, scratch: Path, runtime: str) -> Mapping[str, str]:
    """Return this process's environment, with the parts that were started here in the place of
    others.

    `runtime` holds sockets, whose paths may have no more than about a hundred characters: it
    lies elsewhere."""
    return {**os.environ, **own, "EFFACE_RUNTIME_DIR": runtime, "TMPDIR": str(scratch)}


def _wait_until_ready(url: str, port: int, children: tuple[Child, ...]) -> None:
    """Wait until the API that was started here answers; another process on its port is none of
    ours.
    """
    deadline = time.monotonic() + READY_SECONDS
    gateway = children[0]
    while True:
        ended = next((child for child in children if not child.runs), None)
        if ended is gateway:
            _check_free(port)
        if ended is not None or time.monotonic() > deadline:
            culprit = ended or gateway
            raise Unavailable(f"The {culprit.name} did not start; see {culprit.log_file}.")
        if gateway.listens(port) and _answers(url):
            return
        time.sleep(LOOK_SECONDS)


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/ready").is_success
    except httpx.TransportError:
        return False  # not yet
