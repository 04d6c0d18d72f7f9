"""What the fixtures of one test and of one module have in common."""

import atexit
import base64
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache
from pathlib import Path

import psycopg
import redis
from pydantic import SecretStr
from sqlalchemy import Connection, text

from shared.crypto.opendsr_key import make_self_signed
from shared.ports.embedded_servers import DATA_ROOT_VARIABLE
from shared.postgres.database import Database, make_engine
from shared.postgres.tables import Base
from shared.settings import Settings

PROCESSOR_DOMAIN = "opendsr.example.com"
"""Whom the test certificate of OpenDSR is issued to."""
APPEND_ONLY = ("audit_log", "audit_chain", "audit_heads")


def make_settings(postgres_url: str, redis_url: str, folder: Path) -> Settings:
    """Return settings with a storage in `folder`, and leases short enough to lose."""
    key_file, certificate_file = processor_files()
    return Settings(
        _env_file=None,
        database_url=SecretStr(postgres_url),
        redis_url=SecretStr(redis_url),
        storage_url=f"file://{folder / 'objects'}",
        master_key=SecretStr(base64.b64encode(os.urandom(32)).decode()),
        signing_dir=folder / "signing",
        opendsr_key_file=key_file,
        opendsr_certificate_file=certificate_file,
        database_pool_size=6,
        lease_seconds=2,
        heartbeat_seconds=0.3,
        kill_grace_seconds=0.5,
        relay_seconds=0.2,
        reconcile_seconds=0.2,
        republish_seconds=1,
        device="cpu",
        log_format="console",
    )


def embedded_data_root() -> None:
    """Let an embedded Postgres that root has started keep its data where its user gets to; deleted at the end."""
    if os.geteuid() == 0 and DATA_ROOT_VARIABLE not in os.environ:
        folder = Path(tempfile.mkdtemp(prefix="efface-postgres-"))
        folder.chmod(0o711)
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        os.environ[DATA_ROOT_VARIABLE] = str(folder)


@cache
def processor_files() -> tuple[Path, Path]:
    """Return a key and a certificate for OpenDSR, made once a run: an RSA key takes a while."""
    folder = Path(tempfile.mkdtemp(prefix="efface-opendsr-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return make_self_signed(folder, PROCESSOR_DOMAIN)


@contextmanager
def emptied_database(settings: Settings) -> Iterator[Database]:
    """Open a database; empty every table at the end."""
    engine = make_engine(settings)
    try:
        yield Database(engine)
        with engine.begin() as connection:
            _empty(connection)
    finally:
        engine.dispose()


def _empty(connection: Connection) -> None:
    """Delete what there is. To truncate takes longer than most tests: it makes new files for every table."""
    tables = {table.name: table for table in reversed(Base.metadata.sorted_tables)}
    holds = " UNION ALL ".join(f"SELECT '{table}' WHERE EXISTS (SELECT FROM {table})" for table in tables)
    filled = set(connection.execute(text(holds)).scalars())
    sealed = [table for table in APPEND_ONLY if table in filled]
    statements = [f"ALTER TABLE {table} DISABLE TRIGGER USER" for table in sealed]
    statements += [f"DELETE FROM {table}" for table in tables if table in filled]
    counted = [(name, table.autoincrement_column) for name, table in tables.items() if name in filled]
    statements += [f"ALTER TABLE {name} ALTER {column.name} RESTART" for name, column in counted if column is not None]
    statements += [
        f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {table}_{name}" for table in sealed for name in ("rows", "truncate")
    ]
    for statement in statements:
        connection.execute(text(statement))


def without_fsync(postgres_url: str) -> None:
    """Let a server whose data nobody will miss answer before they are on the disk."""
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        for name in ("fsync", "synchronous_commit", "full_page_writes"):
            connection.execute(f"ALTER SYSTEM SET {name} = off")
        connection.execute("SELECT pg_reload_conf()")


def flush(redis_url: str) -> None:
    """Empty a Redis."""
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()


class Restartable:
    """A server that can be stopped and started again on its data, on the same port."""

    def __init__(self, start: Callable[[], AbstractContextManager[str]]) -> None:
        self._start = start
        self._running = ExitStack()

    def __enter__(self) -> str:
        return self._running.enter_context(self._start())

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def restart(self) -> None:
        """Stop it and start it again."""
        self._running.close()
        self._running.enter_context(self._start())
