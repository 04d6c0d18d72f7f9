"""The list of what was purged, to purge it again where a backup has brought it back.

The list is in Postgres and, one small object for each data set, in the object storage: whichever of the two is restored,
the other one still knows. An operator may keep a copy outside of both.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from services import dataset_purge, sweeper
from services.dataset_purge import LIST_PREFIX
from shared.database import Database
from shared.errors import InvalidRequest
from shared.settings import Settings
from shared.storage import Storage
from shared.tables import Dataset, DatasetPurge, Job


@dataclass(frozen=True, slots=True, order=True)
class Purged:
    """A data set that must not exist any more."""

    dataset: str
    tenant: str

    @property
    def key(self) -> str:
        """Where its object was."""
        return f"tenants/{self.tenant}/datasets/{self.dataset}"


def purged(session: Session, storage: Storage) -> set[Purged]:
    """Return everything that was ever purged, as far as Postgres or the storage knows."""
    rows = session.execute(select(DatasetPurge.dataset_id, DatasetPurge.tenant_id))
    listed = (storage.get(found.key) for found in storage.list(LIST_PREFIX) if found.size)
    return {Purged(dataset, tenant) for dataset, tenant in rows} | set(parse(listed))


def parse(lines: Iterable[bytes]) -> list[Purged]:
    """Read lines of JSON, `{"dataset": ..., "tenant": ...}`; empty ones are skipped.

    Raises:
        InvalidRequest: a line is something else.
    """
    found = []
    for number, line in enumerate(filter(bytes.strip, lines), start=1):
        try:
            entry = json.loads(line)
            found.append(Purged(str(entry["dataset"]), str(entry["tenant"])))
        except (ValueError, TypeError, KeyError) as error:
            detail = (
                f'line {number} is not {{"dataset": ..., "tenant": ...}}; give what "efface purge list" has written'
            )
            raise InvalidRequest.at("/from", detail) from error
    return found


def pending(session: Session, storage: Storage, listed: Iterable[Purged]) -> list[Purged]:
    """Return what is back: there is a row, or an object."""
    wanted = sorted(set(listed))
    rows = set(session.scalars(select(Dataset.id).where(Dataset.id.in_([entry.dataset for entry in wanted]))))
    return [entry for entry in wanted if entry.dataset in rows or storage.find(entry.key)]


def purge_again(database: Database, storage: Storage, settings: Settings, listed: Iterable[Purged]) -> int:
    """Purge what is back, also where a restored job would still use it; return how many data sets that were.

    The leftovers of every job that has ended are swept once more: the storage may have brought them back, too.
    """
    with database.transaction() as session:
        back = pending(session, storage, listed)
        session.execute(update(Job).where(Job.finished_at.is_not(None)).values(purged_at=None))
    for entry in back:
        with database.transaction() as session:
            doomed = dataset_purge.begin(session, entry.dataset, settings, forced="restored")
        lost = dataset_purge.abandoned(entry.tenant, entry.dataset, "restored")
        sweeper.purge(database, storage, doomed or lost)
    while sweeper.sweep_jobs(database, storage):
        pass
    return len(back)
