"""Uploads that are on their way to the storage. Each has a row before its first object, so that
none is left for ever.

`begin` writes the row, `finish` deletes it in the transaction that writes the row of the model
or data set, `take_back` deletes the objects where it came to nothing: at once by who received
the upload, later by the relay where that one died."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import structlog
from sqlalchemy import delete, func, or_, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from services.access import quotas
from services.deletion import delete_all
from shared.errors import Conflict, EffaceError
from shared.ports.object_storage import Storage
from shared.postgres.database import Database
from shared.postgres.tables import UnfinishedUpload
from shared.settings import Settings

Kind = Literal["dataset", "model"]
Begin = Callable[[], AbstractContextManager[Session]]
"""Gives a transaction, which is committed at its end."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfinished:
    """What an upload is to become, and where its objects go."""

    id: str
    tenant_id: str
    kind: Kind
    key: str
    size_bytes: int


def begin(session: Session, upload: Unfinished, settings: Settings) -> None:
    """Write down that objects are about to be stored.

    Raises:
        StorageFull: the tenant stores as much as it may.
    """
    quotas.check_storage(session, upload.tenant_id, upload.kind, upload.size_bytes, settings)
    session.add(
        UnfinishedUpload(
            id=upload.id,
            tenant_id=upload.tenant_id,
            kind=upload.kind,
            key=upload.key,
            size_bytes=upload.size_bytes,
        )
    )
    session.flush()


def finish(session: Session, upload_id: str) -> None:
    """Forget an upload whose objects now have another row, which must be written in the same
    transaction.

    Raises:
        Conflict: it took so long that it was given up, and its objects are being deleted.
    """
    standing = (UnfinishedUpload.id == upload_id, UnfinishedUpload.given_up_at.is_(None))
    if (
        session.scalar(delete(UnfinishedUpload).where(*standing).returning(UnfinishedUpload.id))
        is None
    ):
        raise Conflict("The upload took so long that it was given up; send it again.")


def take_back(begin: Begin, storage: Storage, upload_id: str) -> bool:
    """Delete the objects of an upload, and then its row; False where it was finished after all, or
    is gone.

    A commit whose answer was lost may still have happened: the row says so, once whoever commits
    has let go of it.

    Raises:
        Unavailable: the storage does not answer, or still lists some of it.
    """
    with begin() as session:
        row = session.scalar(
            select(UnfinishedUpload).where(UnfinishedUpload.id == upload_id).with_for_update()
        )
        if row is None:
            return False
        key = row.key
        row.given_up_at = row.given_up_at or func.clock_timestamp()
    delete_all(storage, key)
    with begin() as session:
        session.execute(delete(UnfinishedUpload).where(UnfinishedUpload.id == upload_id))
    return True


def try_to_take_back(begin: Begin, storage: Storage, upload_id: str) -> None:
    """Do what `take_back` does; where that fails, the relay does it later."""
    try:
        take_back(begin, storage, upload_id)
    except (EffaceError, SQLAlchemyError, OSError) as error:
        log.warning("upload.left_for_the_relay", upload=upload_id, error=str(error))


def sweep_unfinished_uploads(
    database: Database, storage: Storage, older_than: timedelta, limit: int = 100
) -> int:
    """Take back uploads that began `older_than` ago, or were given up already; return how many. One
    that fails holds up no other.

    Raises:
        EffaceError: some could not be taken back; the others were.
    """
    old = UnfinishedUpload.created_at < func.statement_timestamp() - older_than
    dead = or_(UnfinishedUpload.given_up_at.is_not(None), old)
    with database.transaction() as session:
        found = session.scalars(
            select(UnfinishedUpload.id)
            .where(dead)
            .order_by(UnfinishedUpload.created_at)
            .limit(limit)
        ).all()
    done, failure = 0, None
    for upload_id in found:
        try:
            done += take_back(database.transaction, storage, upload_id)
        except EffaceError as error:
            failure = error
    if failure is not None:
        raise failure
    return done
