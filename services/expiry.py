"""Rows that live for a time alone: answers under idempotency keys, and access tokens. The relay deletes what is over."""

from sqlalchemy import delete, func
from sqlalchemy.orm import Session

from shared.tables import AccessToken, IdempotencyKey


def sweep(session: Session) -> None:
    """Delete every row whose time is over. Nothing waits for it: what has expired is not looked at anyway."""
    for table in (IdempotencyKey, AccessToken):
        session.execute(delete(table).where(table.expires_at <= func.clock_timestamp()))
