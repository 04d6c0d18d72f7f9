"""The migrations make the schema that the code knows, and can take it back."""

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC

import pytest
from alembic import command as alembic
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, create_engine, inspect, text

import migrations
from shared.postgres.tables import Base


@pytest.fixture
def empty(postgres_url: str) -> Iterator[Engine]:
    """A database with nothing in it."""
    url = postgres_url.replace("postgresql://", "postgresql+psycopg://")
    server = create_engine(url, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(text("CREATE DATABASE empty"))
    engine = create_engine(url.rpartition("/")[0] + "/empty")
    yield engine
    engine.dispose()
    with server.connect() as connection:
        connection.execute(text("DROP DATABASE empty"))
    server.dispose()


def url_of(engine: Engine) -> str:
    return engine.url.render_as_string(hide_password=False)


def test_the_migrations_make_what_the_tables_say(empty: Engine) -> None:
    with empty.connect() as connection:
        assert not migrations.is_current(connection)
    migrations.upgrade(url_of(empty))
    with empty.connect() as connection:
        assert migrations.is_current(connection)
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []


def test_migrating_twice_at_once_is_safe(empty: Engine) -> None:
    command = [sys.executable, "-c", "import migrations, sys; migrations.upgrade(sys.argv[1])", url_of(empty)]
    processes = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    with empty.connect() as connection:
        assert migrations.is_current(connection)


def test_the_migrations_can_be_taken_back(empty: Engine) -> None:
    migrations.upgrade(url_of(empty))
    alembic.downgrade(migrations.configuration(url_of(empty)), "base")
    assert inspect(empty).get_table_names() == ["alembic_version"]


def test_jobs_from_before_deadlines_get_one(empty: Engine) -> None:
    migrations.upgrade(url_of(empty), "0001")
    with empty.begin() as connection:
        connection.execute(text("INSERT INTO tenants (id, name) VALUES ('t', 't')"))
        connection.execute(
            text(
                "INSERT INTO jobs (id, tenant_id, state, progress, version, request, spec, method, received_at, attempt,"
                " max_attempts) VALUES ('j', 't', 'queued', 0, 1, '{}', '{}', 'synthetic', '2026-01-31T09:00Z', 0, 3)"
            )
        )
    migrations.upgrade(url_of(empty))
    with empty.connect() as connection:
        due = connection.execute(text("SELECT due_at FROM jobs")).scalar_one()
    assert due.astimezone(UTC).isoformat() == "2026-02-28T23:59:59+00:00"


def test_jobs_in_flight_keep_their_data_sets(empty: Engine) -> None:
    migrations.upgrade(url_of(empty), "0001")
    data = {"forget": {"id": "ds_f"}, "retain": {"id": "ds_r"}, "proxy": {"id": None}, "evaluation": [{"id": "ds_e"}]}
    values = {"spec": json.dumps({"data": data}), "now": "2026-01-01T00:00:00Z"}
    with empty.begin() as connection:
        connection.execute(text("INSERT INTO tenants (id, name) VALUES ('t', 't')"))
        insert = """INSERT INTO jobs (id, tenant_id, state, progress, version, request, spec, method, received_at, attempt,
                    max_attempts) VALUES ('j', 't', 'queued', 0, 1, '{}', :spec, 'three_stage', :now, 0, 3)"""
        connection.execute(text(insert), values)
    migrations.upgrade(url_of(empty))
    with empty.connect() as connection:
        rows = connection.execute(text("SELECT dataset_id, purged FROM job_datasets ORDER BY dataset_id"))
        assert rows.all() == [("ds_e", False), ("ds_f", True), ("ds_r", False)]
