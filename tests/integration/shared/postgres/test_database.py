"""Connections that Postgres has ended are replaced before anybody uses them."""

from sqlalchemy import text

from shared.postgres.database import Database

END_ALL_OTHERS = text(
    "SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity"
    " WHERE pid != pg_backend_pid() AND application_name = 'efface'"
)
"""Returns when they have ended: until then a connection still looks sound."""
OWN = text("SELECT pg_backend_pid()")


def test_whoever_comes_after_a_restart_sees_no_error(database: Database) -> None:
    with database.transaction() as first, database.transaction() as second, database.transaction() as third:
        before = {session.scalar(OWN) for session in (first, second, third)}
    with database.transaction() as session:
        assert session.scalar(END_ALL_OTHERS) >= 2
    with database.transaction() as first, database.transaction() as second, database.look() as third:
        after = {asked.scalar(OWN) for asked in (first, second, third)}
    assert len(before) == len(after) == 3
    assert len(before & after) <= 1


def test_a_connection_that_was_closed_here_is_replaced(database: Database) -> None:
    with database.transaction() as session:
        pooled = session.connection().connection.dbapi_connection
    assert pooled is not None
    pooled.close()
    with database.transaction() as session:
        assert session.scalar(OWN) > 0
