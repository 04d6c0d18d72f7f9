"""The one way to Postgres: an engine per process, a session per request or task, a commit at the edge."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import Session, sessionmaker

from shared.settings import Settings

OUTBOX_CHANNEL = "efface_outbox"
"""Postgres channel that wakes the relay when an outbox row is committed."""


def make_engine(settings: Settings) -> Engine:
    """Return an engine whose connections are checked before use, so that a restarted Postgres costs nobody an error."""
    return create_engine(
        settings.sqlalchemy_url(),
        pool_size=settings.database_pool_size,
        max_overflow=settings.database_pool_size,
        pool_pre_ping=True,
        connect_args={"connect_timeout": 5, "application_name": "efface"},
    )


class Database:
    """Sessions over one engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._sessions = sessionmaker(engine, expire_on_commit=False)

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """Give a session; commit when the block ends, roll back when it raises."""
        with self._sessions.begin() as session:
            yield session
