"""Backup and restore: Postgres by its own tools, objects as files, and what was purged stays
purged.

What is restored is purged again before anything may start. Keys are no part of a backup: whoever
has both opens what was purged since."""

import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from psycopg.conninfo import conninfo_to_dict
from pydantic import SecretStr
from sqlalchemy import text

import migrations
from api import VERSION
from migrations.grants import grant
from services.purging import restored_backups
from services.purging.restored_backups import Purged
from shared import home as home_file
from shared.errors import Conflict, EffaceError, InvalidRequest, Unavailable
from shared.files.image_archives import file_sha256
from shared.ports.embedded_servers import embedded_postgres, postgres_binaries, private_folder
from shared.ports.object_storage import ObjectMissing, Storage
from shared.postgres.database import Database, make_engine
from shared.settings import Settings

DUMP, MANIFEST, LIST, OBJECTS = "postgres.dump", "backup.json", "purged.jsonl", "objects"
PREFIXES = ("audit", "tenants", "purged")
"""What is copied, in this order. The signed head comes before Postgres: a head of later entries
would look like tampering.
"""


@dataclass(frozen=True, slots=True)
class Manifest:
    """`backup.json`."""

    version: str
    created_at: str
    dump_sha256: str
    objects: int
    bytes: int


@contextmanager
def settings_of(home: Path, *, stopped: bool) -> Iterator[Settings]:
    """Give the settings of a home of `efface up`: of the service that runs there, else of its
    Postgres, started for this.

    Args:
        home: which.
        stopped: refuse a service that runs.

    Raises:
        Conflict: there is no such home, or a service runs there that must not.
    """
    home = home.expanduser().absolute()
    if not (home / "master-key").is_file():
        raise Conflict(
            f"{home} is no home of a service: it has no master-key. To restore on another "
            "machine, "
            "put the keys there first."
        )
    with (home / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if stopped:
                raise Conflict(f"The service in {home} runs; stop it first.") from error
            home_file.use(home)
            yield Settings()
            return
        with embedded_postgres(home / "postgres") as url:
            yield Settings(
                database_url=SecretStr(url),
                storage_url=f"file://{home / 'objects'}",
                master_key=SecretStr((home / "master-key").read_text().strip()),
            )


def back_up(settings: Settings, folder: Path) -> Manifest:
    """Write a backup into a new folder, for its owner's eyes alone.

    Raises:
        InvalidRequest: the folder is not empty.
        Unavailable: pg_dump is missing or fails, or the storage does not answer.
    """
    if folder.exists() and any(folder.iterdir()):
        raise InvalidRequest.at("", f"{folder} is not empty; give a new folder for each backup")
    private_folder(folder)
    storage = Storage(settings.storage_url)
    counts = [_copied(storage, "audit", folder)]
    _run(
        settings,
        "pg_dump",
        "--format=custom",
        "--no-owner",
        "--no-privileges",
        f"--file={folder / DUMP}",
    )
    counts += [_copied(storage, prefix, folder) for prefix in PREFIXES[1:]]
    with _database(settings) as database, database.transaction() as session:
        lines = [entry.line() for entry in sorted(restored_backups.purged(session, storage))]
    (folder / LIST).write_text("".join(f"{line}\n" for line in lines))
    manifest = Manifest(
        version=VERSION,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        dump_sha256=file_sha256(folder / DUMP),
        objects=sum(count for count, _ in counts),
        bytes=sum(size for _, size in counts),
    )
    (folder / MANIFEST).write_text(json.dumps(asdict(manifest), indent=2) + "\n")
    return manifest


def restore(settings: Settings, folder: Path, *, replace: bool) -> int:
    """Put a backup in the place of what is there, and purge again what was purged since; return how
    many things that were.

    What the present database, the present storage and the backup know of purges counts alike.
    Nothing of the service may run.

    Raises:
        InvalidRequest: the folder holds no sound backup.
        Conflict: there are jobs already and `replace` is false, or something is connected to the
            database.
        Unavailable: pg_restore is missing or fails, or the storage does not answer.
    """
    _check(folder)
    storage = Storage(settings.storage_url)
    with _database(settings) as database:
        listed = _purged_so_far(database, storage, replace=replace)
        listed |= set(restored_backups.parse((folder / LIST).read_bytes().splitlines()))
        with database.transaction() as session:
            session.execute(text("DROP SCHEMA public CASCADE"))
            session.execute(text("CREATE SCHEMA public"))
    options = (
        "--no-owner",
        "--no-privileges",
        "--exit-on-error",
        "--single-transaction",
        "--schema=public",
    )
    _run(
        settings,
        "pg_restore",
        *options,
        f"--dbname={_connection(settings)['dbname']}",
        str(folder / DUMP),
    )
    migrations.upgrade(settings.sqlalchemy_url())
    if settings.database_service_role is not None:
        grant(settings.sqlalchemy_url(), settings.database_service_role)
    for prefix in ("audit", "tenants"):
        storage.delete(prefix)
    for file in sorted(path for path in (folder / OBJECTS).rglob("*") if path.is_file()):
        storage.put(file.relative_to(folder / OBJECTS).as_posix(), file)
    with _database(settings) as database:
        return restored_backups.purge_again(database, storage, settings, listed)


def empty_redis(home: Path) -> None:
    """Empty the embedded Redis of a home: what it holds is of another time, and all of it can be
    lost.
    """
    shutil.rmtree(home.expanduser() / "redis" / "appendonlydir", ignore_errors=True)


@contextmanager
def _database(settings: Settings) -> Iterator[Database]:
    engine = make_engine(settings)
    try:
        yield Database(engine)
    finally:
        engine.dispose()


def _copied(storage: Storage, prefix: str, folder: Path) -> tuple[int, int]:
    """Copy the objects below a prefix into files, but those that go meanwhile; return how many
    they are, and their bytes.
    """
    count = size = 0
    for found in storage.list(prefix):
        target = folder / OBJECTS / found.key
        try:
            storage.download(found.key, target)
        except ObjectMissing:
            target.unlink(missing_ok=True)
            continue
        count, size = count + 1, size + target.stat().st_size
    return count, size


def _check(folder: Path) -> None:
    """Raise InvalidRequest unless a folder holds a backup whose dump is whole and whose objects
    are all there.
    """
    try:
        manifest = Manifest(**json.loads((folder / MANIFEST).read_text()))
        whole = file_sha256(folder / DUMP) == manifest.dump_sha256 and (folder / LIST).is_file()
    except (OSError, ValueError, TypeError) as error:
        raise InvalidRequest.at(
            "", f"{folder} holds no backup that 'efface backup' has finished"
        ) from error
    files = [path.stat().st_size for path in (folder / OBJECTS).rglob("*") if path.is_file()]
    if not whole or (len(files), sum(files)) != (manifest.objects, manifest.bytes):
        raise InvalidRequest.at(
            "", f"{folder} was changed since its backup was made; nothing was restored"
        )


def _purged_so_far(database: Database, storage: Storage, *, replace: bool) -> set[Purged]:
    """Return what the database and the storage know of purges before they are replaced.

    Raises:
        Conflict: somebody is connected, or there are jobs that nobody said may go.
    """
    with database.transaction() as session:
        others = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND "
            "pid <> pg_backend_pid()"
        )
        if session.scalar(text(f"{others} AND application_name = 'efface'")):
            raise Conflict(
                "Gateways, relays or workers are connected to the database; stop them first."
            )
        if session.scalar(text("SELECT to_regclass('public.dataset_purges')")) is None:
            return set()
        jobs = session.scalar(text("SELECT count(*) FROM jobs"))
        if jobs and not replace:
            raise Conflict(
                f"The database holds {jobs} jobs; give --replace if the backup is to take "
                "their "
                "place."
            )
    migrations.upgrade(database.engine.url.render_as_string(hide_password=False))
    with database.transaction() as session:
        return restored_backups.purged(session, storage)


def _connection(settings: Settings) -> dict[str, Any]:
    return conninfo_to_dict(
        settings.sqlalchemy_url().replace("postgresql+psycopg://", "postgresql://")
    )


def _run(settings: Settings, tool: str, *arguments: str) -> None:
    """Run a tool of Postgres on the database of the settings. The password is in its environment,
    where nobody else sees it.

    Raises:
        Unavailable: it is missing, or fails.
    """
    names = {
        "host": "PGHOST",
        "port": "PGPORT",
        "user": "PGUSER",
        "password": "PGPASSWORD",
        "dbname": "PGDATABASE",
    }
    own = {
        names[name]: str(value) for name, value in _connection(settings).items() if name in names
    }
    environment: Mapping[str, str] = os.environ | own
    done = subprocess.run(
        [_tool(tool), *arguments], env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise Unavailable(
            f"{tool} failed: {(done.stderr.strip().splitlines() or ['it said nothing'])[-1]}"
        )


def _tool(name: str) -> str:
    """Return the path of a tool: beside the embedded Postgres, or where the system has it."""
    try:
        embedded = postgres_binaries() / name
        if embedded.exists():
            return str(embedded)
    except (EffaceError, ValueError):
        pass  # the extra is not installed
    found = shutil.which(name)
    if found is None:
        raise Unavailable(
            f"{name} is not here; install the client programs of Postgres, of its version or a "
            "newer one."
        )
    return found
