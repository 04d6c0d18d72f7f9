"""The one way to Postgres: an engine per process, a session per request or task, a commit at the
edge.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from select import POLLIN, poll
from typing import Any

import psycopg
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.orm import Session, sessionmaker

from shared.settings import Settings

OUTBOX_CHANNEL = "efface_outbox"
"""Postgres channel that wakes the relay when an outbox row is committed."""
EVENTS_CHANNEL = "efface_events"
"""Postgres channel that calls the id of a job when an event of it is committed."""


PATIENCE: dict[str, Any] = {
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
"""A connection whose other end is gone without a word is given up after half a minute, not after
a quarter of an hour.
"""


def make_engine(settings: Settings) -> Engine:
    """Return an engine whose connections are checked before use, so that a restarted Postgres
    costs nobody an error.
    """
    engine = create_engine(
        settings.sqlalchemy_url(),
        pool_size=settings.database_pool_size,
        # a connection beyond the pool would be made and thrown away by every request of a burst
        max_overflow=0,
        connect_args={"connect_timeout": 5, "application_name": "efface", **PATIENCE},
    )

    def check(connection: Any, *_: object) -> None:  # noqa: ANN401 - psycopg's, which the engine hides
        """Ask for an answer only where the server has spoken unasked, as it does when it goes:
        `pool_pre_ping` always asks.
        """
        spoken = poll()
        try:
            spoken.register(connection.fileno(), POLLIN)
            if spoken.poll(0):
                engine.dialect.do_ping(connection)
        except psycopg.Error as error:
            raise InvalidatePoolError from error

    event.listen(engine, "checkout", check)
    return engine


class Database:
    """Sessions over one engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._sessions = sessionmaker(engine, expire_on_commit=False)
        self._looks = engine.execution_options(isolation_level="AUTOCOMMIT")

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """Give a session; commit when the block ends, roll back when it raises."""
        with self._sessions.begin() as session:
            yield session

    @contextmanager
    def look(self) -> Iterator[Connection]:
        """Give a connection for a single SELECT, which needs neither BEGIN nor COMMIT; nothing
        may be written with it.
        """
        with self._looks.connect() as connection:
            yield connection
