"""Advisory locks of Postgres, by name. They end with the transaction, however it ends: nothing
is left to clean up.
"""

import hashlib

from sqlalchemy import func, select
from sqlalchemy.orm import Session


def lock(session: Session, *name: str) -> None:
    """Wait for a lock and hold it until the transaction ends."""
    session.execute(select(func.pg_advisory_xact_lock(_number(name))))


def try_lock(session: Session, *name: str) -> bool:
    """Take a lock until the transaction ends; False, at once, where another transaction holds
    it.
    """
    return bool(session.scalar(select(func.pg_try_advisory_xact_lock(_number(name)))))


def _number(name: tuple[str, ...]) -> int:
    """Return 64 bits of a hash, signed as Postgres wants them: two names that meet cost a wait,
    never a wrong result.
    """
    digest = hashlib.blake2b("\0".join(name).encode(), digest_size=8).digest()
    return int.from_bytes(digest, signed=True)
