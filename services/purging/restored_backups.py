"""The list of what was purged, to purge it again where a backup has brought it back.

The list is in Postgres and, one small object for each data set and model, in the object storage:
whichever of the two is restored, the other one still knows. An operator may keep a copy outside
of both."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ARRAY, ColumnElement, Text, any_, cast, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from services.purging import datasets as dataset_purge
from services.purging import models as model_purge
from services.purging import sweeper
from services.purging.datasets import LIST_PREFIX
from services.purging.models import DoomedModel
from shared.errors import InvalidRequest
from shared.ports.object_storage import Storage
from shared.postgres.database import Database
from shared.postgres.tables import Dataset, DatasetPurge, Job, Model, ModelPurge
from shared.settings import Settings

BATCH = 1000
"""Ids in one query."""


@dataclass(frozen=True, slots=True, order=True)
class Purged:
    """A data set, or a model, that must not exist any more."""

    id: str
    tenant: str
    prefix: str = ""
    """Where a model's files were; empty for a data set, and for a model that was only a
    reference.
    """
    model: bool = False

    @property
    def key(self) -> str:
        """Where its object was, or what its objects' keys begin with."""
        return self.prefix if self.model else f"tenants/{self.tenant}/datasets/{self.id}"

    def line(self) -> str:
        """Return it as one line of JSON."""
        if self.model:
            return json.dumps({"model": self.id, "tenant": self.tenant, "prefix": self.prefix})
        return json.dumps({"dataset": self.id, "tenant": self.tenant})


def purged(session: Session, storage: Storage) -> set[Purged]:
    """Return everything that was ever purged, as far as Postgres or the storage knows."""
    datasets = session.execute(select(DatasetPurge.dataset_id, DatasetPurge.tenant_id))
    models = session.execute(select(ModelPurge.model_id, ModelPurge.tenant_id, ModelPurge.prefix))
    rows = {Purged(dataset, tenant) for dataset, tenant in datasets}
    rows |= {Purged(model, tenant, prefix or "", model=True) for model, tenant, prefix in models}
    listed = (storage.get(found.key) for found in storage.list(LIST_PREFIX) if found.size)
    return rows | set(parse(listed))


def parse(lines: Iterable[bytes]) -> list[Purged]:
    """Read lines of JSON, as `Purged.line` writes them; empty ones are skipped.

    Raises:
        InvalidRequest: a line is something else.
    """
    found = []
    for number, line in enumerate(filter(bytes.strip, lines), start=1):
        try:
            found.append(_entry(json.loads(line)))
        except (ValueError, TypeError, KeyError) as error:
            detail = (
                f'line {number} is not {{"dataset": ..., "tenant": ...}}; give what "efface '
                'purge list" has written'
            )
            raise InvalidRequest.at("/from", detail) from error
    return found


def pending(session: Session, storage: Storage, listed: Iterable[Purged]) -> list[Purged]:
    """Return what is on the list and is there again: a row, or an object."""
    entries = sorted(listed)
    datasets, models = [e for e in entries if not e.model], [e for e in entries if e.model]
    rows = _present(session, Dataset.id, [e.id for e in datasets])
    rows |= _present(session, Model.id, [e.id for e in models], Model.deleted_at.is_(None))
    stored = {
        found.key
        for tenant in sorted({e.tenant for e in datasets})
        for found in storage.each(f"tenants/{tenant}/datasets")
        if found.size
    }
    back = [e for e in datasets if e.id in rows or e.key in stored]
    return back + [
        e
        for e in models
        if e.id in rows or (e.prefix and any(o.size for o in storage.each(e.prefix)))
    ]


def purge_again(
    database: Database, storage: Storage, settings: Settings, listed: Iterable[Purged]
) -> int:
    """Purge what is back, also where a restored job would still use it; return how many data sets
    and models that were.

    The leftovers of every job that has ended are swept once more: the storage may have brought
    them back, too."""
    with database.transaction() as session:
        back = pending(session, storage, listed)
        session.execute(update(Job).where(Job.finished_at.is_not(None)).values(purged_at=None))
    for entry in back:
        if entry.model:
            sweeper.purge_model(database, storage, _doomed_model(database, entry))
            continue
        with database.transaction() as session:
            doomed = dataset_purge.begin(session, entry.id, settings, forced="restored")
        lost = dataset_purge.abandoned(entry.tenant, entry.id, "restored")
        sweeper.purge(database, storage, doomed or lost)
    while sweeper.sweep_jobs(database, storage):
        pass
    return len(back)


def _entry(entry: dict[str, Any]) -> Purged:
    tenant = str(entry["tenant"])
    if "model" in entry:
        return Purged(
            str(entry["model"]), tenant, _own_prefix(tenant, str(entry["prefix"] or "")), model=True
        )
    return Purged(str(entry["dataset"]), tenant)


def _own_prefix(tenant: str, prefix: str) -> str:
    """Return where a model's files were; a list from outside must not delete anything else.

    Raises:
        ValueError: it is no place of a model of this tenant.
    """
    parts = prefix.split("/")  # tenants/T/models/M or tenants/T/jobs/J/A/model
    own = parts[:2] == ["tenants", tenant] and not {"", ".", ".."} & set(parts)
    uploaded = len(parts) == 4 and parts[2] == "models"
    published = len(parts) == 6 and parts[2] == "jobs" and parts[5] == "model"
    if prefix and not (own and (uploaded or published)):
        raise ValueError(prefix)
    return prefix


def _doomed_model(database: Database, entry: Purged) -> DoomedModel:
    with database.transaction() as session:
        if session.get(Model, entry.id) is None:
            return DoomedModel(entry.id, entry.tenant, entry.prefix or None)
        return model_purge.begin(session, entry.tenant, entry.id, forced=True)


def _present(
    session: Session,
    column: InstrumentedAttribute[str],
    ids: Sequence[str],
    *where: ColumnElement[bool],
) -> set[str]:
    """Return those of `ids` that have a row, asked for in batches: the list grows for ever."""
    found: set[str] = set()
    for start in range(0, len(ids), BATCH):
        asked = cast(list(ids[start : start + BATCH]), ARRAY(Text))
        found.update(session.scalars(select(column).where(column == any_(asked), *where)))
    return found
