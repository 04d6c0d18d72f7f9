"""Objects that no row knows: what uploads, jobs and restores have left in the storage, found by
comparing it with the rows.

Every kind of place that the service writes to below `tenants/` is looked at. What lies under a
name that the service never gives is somebody else's: it is counted as foreign and left alone."""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from sqlalchemy import ARRAY, Select, Text, any_, cast, select
from sqlalchemy.orm import InstrumentedAttribute

from shared.ids import created_at
from shared.ports.object_storage import Storage, StoredObject
from shared.postgres.database import Database
from shared.postgres.tables import Dataset, Job, Model, ModelPurge, Tenant

AGE = timedelta(days=1)
"""What is younger may belong to something that has not committed yet."""
BATCH = 1000
"""Ids in one query."""
LONG_AGO = datetime.min.replace(tzinfo=UTC)

_ID = re.compile(r"(?:ds|mdl|job)_[0-9a-hjkmnp-tv-z]{26}")

Kind = Literal["dataset", "model", "job", "features", "samples", "tenant", "foreign"]
WORDS: dict[Kind, str] = {
    "dataset": "an archive without a data set",
    "model": "files without a model",
    "job": "files without a job",
    "features": "features of a data set that is gone",
    "samples": "a sample bank, as versions before kept them beyond the job",
    "tenant": "files of a tenant that does not exist",
    "foreign": "under a name that the service never gives; left alone",
}


@dataclass(frozen=True, slots=True)
class Orphan:
    """Objects that belong together, and that no row knows."""

    kind: Kind
    tenant_id: str
    id: str
    """Of what they would belong to: the last part of `prefix`."""
    prefix: str
    objects: int
    bytes: int


Place = tuple[Kind, str]
"""What kind of thing, and the prefix that it begins with."""


@dataclass(slots=True)
class _Group:
    """What lies below one prefix."""

    objects: int = 0
    bytes: int = 0
    newest: datetime = LONG_AGO

    def add(self, found: StoredObject) -> None:
        """Count an object."""
        self.objects, self.bytes = self.objects + 1, self.bytes + found.size
        self.newest = max(self.newest, found.modified or datetime.now(UTC))


def find(database: Database, storage: Storage, before: datetime | None = None) -> Iterator[Orphan]:
    """Yield what no row knows and is older than `before` (by default a day), tenant by tenant.
    Slow: it lists everything.

    Raises:
        Unavailable: the storage does not answer.
    """
    old = before or datetime.now(UTC) - AGE
    tenants = storage.folders("tenants")
    known = _known(database, select(Tenant.id), Tenant.id, tenants)
    for tenant_id in tenants:
        groups = _groups(storage, tenant_id)
        if tenant_id not in known:
            groups = {("tenant", f"tenants/{tenant_id}"): _joined(groups.values())}
        rows = _rows(database, tenant_id, groups)
        for (kind, prefix), group in groups.items():
            name = prefix.rpartition("/")[2]
            if name not in rows[kind] and (kind == "foreign" or _made(name, group) < old):
                yield Orphan(kind, tenant_id, name, prefix, group.objects, group.bytes)


def _groups(storage: Storage, tenant_id: str) -> dict[Place, _Group]:
    """Return what a tenant has in the storage, by the thing that it belongs to."""
    groups: dict[Place, _Group] = {}
    for found in storage.each(f"tenants/{tenant_id}"):
        if found.size:  # JuiceFS lists folders, too: without a byte, they hold nothing
            groups.setdefault(_place(tenant_id, found.key), _Group()).add(found)
    return groups


def _place(tenant_id: str, key: str) -> Place:
    """Return what kind of thing an object belongs to, and where that begins."""
    parts = key.split("/")[2:]
    below = f"tenants/{tenant_id}"
    match parts:
        case ["datasets", name] if _ID.fullmatch(name):
            return "dataset", key
        case ["models" | "jobs" as section, name, _, *_] if _ID.fullmatch(name):
            return ("model" if section == "models" else "job"), f"{below}/{section}/{name}"
        case ["cache", "evaluations", digest, _]:
            return "features", f"{below}/cache/evaluations/{digest}"
        case ["cache", "tensors", _]:
            return "samples", f"{below}/cache/tensors"
    return "foreign", key


def _rows(database: Database, tenant_id: str, places: Collection[Place]) -> dict[Kind, set[str]]:
    """Return the names among `places` that rows know, by kind."""
    purged = select(ModelPurge.model_id).where(ModelPurge.model_id == Model.id).exists()
    queries: dict[Kind, tuple[Select[str], InstrumentedAttribute[str]]] = {
        "dataset": (select(Dataset.id).where(Dataset.tenant_id == tenant_id), Dataset.id),
        "model": (select(Model.id).where(Model.tenant_id == tenant_id, ~purged), Model.id),
        "job": (select(Job.id).where(Job.tenant_id == tenant_id), Job.id),
        "features": (select(Dataset.digest).where(Dataset.tenant_id == tenant_id), Dataset.digest),
    }
    found: dict[Kind, set[str]] = {kind: set() for kind in WORDS}
    for kind, (query, column) in queries.items():
        found[kind] = _known(
            database, query, column, [p.rpartition("/")[2] for k, p in places if k == kind]
        )
    return found


def _known(
    database: Database, query: Select[str], column: InstrumentedAttribute[str], names: Sequence[str]
) -> set[str]:
    """Return those of `names` that a query finds, asked for in batches."""
    known: set[str] = set()
    for start in range(0, len(names), BATCH):
        asked = cast(list(names[start : start + BATCH]), ARRAY(Text))
        with database.transaction() as session:
            known.update(session.scalars(query.where(column == any_(asked))))
    return known


def _made(name: str, group: _Group) -> datetime:
    """Return when something was begun: its id says so; features and samples are as old as the
    newest of their objects.
    """
    return created_at(name) if _ID.fullmatch(name) else group.newest


def _joined(groups: Iterable[_Group]) -> _Group:
    joined = _Group()
    for group in groups:
        joined.objects, joined.bytes = joined.objects + group.objects, joined.bytes + group.bytes
        joined.newest = max(joined.newest, group.newest)
    return joined
