"""How Alembic reaches the database. A migration that cannot get its locks gives up rather than
stop the service.
"""

from alembic import context
from sqlalchemy import create_engine, text

from shared.postgres.tables import Base

UPGRADE_LOCK = 0x0EFFACE
"""Advisory lock: two processes that migrate at once do it one after the other."""


def run() -> None:
    """Run the migrations in one transaction each."""
    engine = create_engine(context.config.attributes["database_url"])
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": UPGRADE_LOCK})
        connection.execute(
            text("SET lock_timeout = '5s'")
        )  # not before: another process may migrate for longer
        connection.commit()
        context.configure(
            connection=connection, target_metadata=Base.metadata, transaction_per_migration=True
        )
        with context.begin_transaction():
            context.run_migrations()
    engine.dispose()


run()
