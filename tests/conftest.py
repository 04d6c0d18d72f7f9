"""The real parts that tests run on: Postgres built by the migrations, Redis, object storage. Started on first use."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import migrations
from shared.ports.embedded_servers import embedded_postgres, embedded_redis
from shared.ports.object_storage import Storage
from shared.postgres.database import Database
from shared.settings import Settings
from tests.support import parts
from tests.support.fleet import Fleet, make_fleet


def pytest_configure(config: pytest.Config) -> None:
    parts.embedded_data_root()
    _compile_once(config)


def _compile_once(config: pytest.Config) -> None:
    """Have modules compiled once, where the environment forbids to keep them compiled: dozens of processes import them."""
    if sys.dont_write_bytecode:
        compiled = str(config.rootpath / ".pytest_cache" / "bytecode")
        os.environ |= {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": compiled}
        sys.dont_write_bytecode, sys.pycache_prefix = False, compiled


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Postgres for the whole session, with every migration."""
    with embedded_postgres(tmp_path_factory.mktemp("postgres")) as url:
        parts.without_fsync(url)
        migrations.upgrade(url.replace("postgresql://", "postgresql+psycopg://"))
        yield url


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis for the whole session."""
    with embedded_redis(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture
def redis_url(redis_server: str) -> str:
    """The session's Redis, empty."""
    parts.flush(redis_server)
    return redis_server


@pytest.fixture
def settings(postgres_url: str, redis_url: str, tmp_path: Path) -> Settings:
    """Settings for the session's parts, a storage of the test's own, and leases short enough to lose."""
    return parts.make_settings(postgres_url, redis_url, tmp_path)


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    """The session's Postgres; its tables are emptied when the test ends."""
    with parts.emptied_database(settings) as database:
        yield database


@pytest.fixture
def storage(settings: Settings) -> Storage:
    """A file:// storage of the test's own."""
    return Storage(settings.storage_url)


@pytest.fixture
def fleet(settings: Settings, database: Database, storage: Storage, tmp_path: Path) -> Iterator[Fleet]:
    """Workers and relays on the session's parts; nothing of them is left when the test ends."""
    with make_fleet(settings, database, storage, tmp_path) as found:
        yield found
