"""The embedded servers keep their data, let nobody in without a password, and leave no process behind."""

import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from shared.errors import Unavailable
from shared.ports.embedded_servers import embedded_postgres, embedded_redis

STARTER = """
import sys, time
from pathlib import Path
from shared.ports.embedded_servers import embedded_postgres, embedded_redis
folder = Path(sys.argv[1])
with embedded_postgres(folder / "postgres") as postgres, embedded_redis(folder / "redis") as redis:
    print(postgres, redis, flush=True)
    time.sleep(600)
"""


def servers(folder: Path) -> list[psutil.Process]:
    """Return the processes that work in `folder`."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if str(folder) in process.cwd():
                found.append(process)
    return found


def test_data_survive_a_restart(tmp_path: Path) -> None:
    with embedded_postgres(tmp_path / "postgres") as url, psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    with embedded_redis(tmp_path / "redis") as url, redis.Redis.from_url(url) as client:
        client.set("kept", "42")
    assert servers(tmp_path) == []
    with embedded_postgres(tmp_path / "postgres") as url, psycopg.connect(url) as connection:
        assert connection.execute("SELECT answer FROM kept").fetchall() == [(42,)]
    with embedded_redis(tmp_path / "redis") as url, redis.Redis.from_url(url) as client:
        assert client.get("kept") == b"42"


def test_nobody_comes_in_without_the_password(postgres_url: str, redis_server: str) -> None:
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(postgres_url, password="guessed")
    without = f"redis://{redis_server.rpartition('@')[2]}"
    with redis.Redis.from_url(without) as client, pytest.raises(redis.AuthenticationError):
        client.ping()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's death")
def test_a_killed_starter_leaves_no_server_and_no_broken_data(tmp_path: Path) -> None:
    starter = subprocess.Popen([sys.executable, "-c", STARTER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert starter.stdout is not None
    url = starter.stdout.readline().split()[0]
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    assert servers(tmp_path) != []
    starter.send_signal(signal.SIGKILL)
    starter.wait()
    starter.stdout.close()
    deadline = time.monotonic() + 30
    while servers(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert servers(tmp_path) == []
    with embedded_postgres(tmp_path / "postgres") as url, psycopg.connect(url) as connection:
        assert connection.execute("SELECT answer FROM kept").fetchall() == [(42,)]


def test_a_folder_has_one_user_at_a_time(tmp_path: Path) -> None:
    with (
        embedded_redis(tmp_path),
        pytest.raises(Unavailable, match="Another process uses"),
        embedded_redis(tmp_path),
    ):
        pytest.fail("two servers share a folder")


def test_a_server_that_cannot_start_shows_its_log(tmp_path: Path) -> None:
    with (
        embedded_redis(tmp_path / "one") as url,
        pytest.raises(Unavailable, match="Address already in use"),
        embedded_redis(tmp_path / "two", port=int(url.rpartition(":")[2].partition("/")[0])),
    ):
        pytest.fail("two servers share a port")
