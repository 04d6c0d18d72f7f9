"""The schema of Postgres, step by step (Alembic)."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

FOLDER = Path(__file__).parent


def configuration(database_url: str) -> Config:
    """Return Alembic's configuration for a database (a SQLAlchemy URL)."""
    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    config.attributes["database_url"] = database_url
    return config


def upgrade(database_url: str, revision: str = "head") -> None:
    """Bring a database to a revision; running it twice, or twice at once, is safe."""
    command.upgrade(configuration(database_url), revision)


def is_current(connection: Connection) -> bool:
    """Return whether the database has every migration of this version."""
    wanted = ScriptDirectory(str(FOLDER)).get_current_head()
    return MigrationContext.configure(connection).get_current_revision() == wanted
