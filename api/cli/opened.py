"""What the operator's commands work on: the database and the storage that the settings name."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from shared.ports.object_storage import Storage
    from shared.postgres.database import Database
    from shared.settings import Settings


@contextmanager
def opened() -> Iterator[tuple["Settings", "Database", "Storage"]]:
    """Give the settings, and the database and storage that they name."""
    from shared.ports.object_storage import Storage
    from shared.postgres.database import Database, make_engine
    from shared.settings import get_settings
    from shared.telemetry import configure_logging

    settings = get_settings()
    configure_logging(settings.model_copy(update={"log_format": "console", "log_level": "WARNING"}))
    engine = make_engine(settings)
    try:
        yield settings, Database(engine), Storage(settings.storage_url)
    finally:
        engine.dispose()


@contextmanager
def transaction() -> Iterator["Session"]:
    """Give a session on the database of the settings; what it does is the operator's doing."""
    from services.audit_log.entries import ACTOR, OPERATOR

    with opened() as (_, database, _), database.transaction() as session:
        session.info[ACTOR] = OPERATOR
        yield session
