"""What the role of the service may do: everything with rows, but for rewriting the audit log;
nothing with tables.
"""

from sqlalchemy import create_engine, text
from sqlalchemy.sql import quoted_name

from shared.postgres.tables import Base

APPEND_ONLY = ("audit_log", "audit_chain", "audit_heads")


def grant(database_url: str, role: str) -> None:
    """Give a role what the service needs, and take from it what it must not have. Idempotent.

    Args:
        database_url: of SQLAlchemy, as the owner of the tables.
        role: of gateways, relays and workers.
    """
    engine = create_engine(database_url)
    name = engine.dialect.identifier_preparer.quote(quoted_name(role, quote=True))
    tables = sorted(Base.metadata.tables)
    statements = [
        f"GRANT USAGE ON SCHEMA public TO {name}",
        f"GRANT SELECT ON alembic_version TO {name}",
    ]
    for table in tables:
        rights = "SELECT, INSERT" if table in APPEND_ONLY else "SELECT, INSERT, UPDATE, DELETE"
        statements += [f"REVOKE ALL ON {table} FROM {name}", f"GRANT {rights} ON {table} TO {name}"]
    try:
        with engine.begin() as connection:
            for statement in statements:
                connection.execute(text(statement))
    finally:
        engine.dispose()
