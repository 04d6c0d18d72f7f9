"""Purging data sets: destroy the key, delete the object and what was computed from it, look that
they are gone.

Three steps, each of which may be done again after a crash: `begin` destroys the key in one
transaction, from then on no copy can be read and no job can take the data set; `delete` takes
the bytes; `finish` writes the receipt and drops the row. A data set that an unfinished job uses
is left alone: a retry may need it."""

import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import ARRAY, ColumnElement, Text, all_, and_, case, cast, func, null, or_, select
from sqlalchemy.orm import Session

from services.audit_log import entries
from services.deletion import Deleted, delete_all
from services.jobs.data_used import unfinished
from services.purging.job_leftovers import purged_view
from shared.errors import Conflict, NotFound
from shared.ports.object_storage import Storage
from shared.postgres.tables import Dataset, DatasetPurge, Job, JobDataset
from shared.schemas.purge import DatasetPurge as DatasetPurgeView
from shared.schemas.purge import PurgeReason
from shared.schemas.spec import cached_evaluations
from shared.settings import Settings

LIST_PREFIX = "purged"
"""One small object for each purged data set: a list that does not go back in time when Postgres
is restored.
"""


@dataclass(frozen=True, slots=True)
class Doomed:
    """A data set whose key is destroyed."""

    id: str
    tenant_id: str
    reason: PurgeReason
    key: str
    digest: str | None
    """Of the archive: what was computed from it is filed under it. Null where no row knows it."""
    sealed_sha256: str | None
    key_destroyed_at: datetime | None


def due(
    session: Session, settings: Settings, besides: Collection[str] = (), limit: int = 20
) -> list[str]:
    """Return data sets that must go, then those that are on their way, but for those in
    `besides`.
    """
    overdue = or_(Dataset.purging_at.is_not(None), _reason(settings).is_not(None))
    others = Dataset.id != all_(cast(list(besides), ARRAY(Text)))
    order = (Dataset.purging_at.is_not(None), Dataset.created_at)
    return list(
        session.scalars(select(Dataset.id).where(overdue, others).order_by(*order).limit(limit))
    )


def begin(
    session: Session, dataset_id: str, settings: Settings, forced: PurgeReason | None = None
) -> Doomed | None:
    """Destroy a data set's key; None where the data set is needed after all, or somebody else is at
    it.

    Whoever submits a job holds a share of the row, and is seen here only once the row is locked:
    two statements."""
    locked = select(Dataset).where(Dataset.id == dataset_id).with_for_update(skip_locked=True)
    row = session.scalar(locked)
    if row is None:
        return None
    if row.purging_at is None:
        reason = forced or session.scalar(select(_reason(settings)).where(Dataset.id == dataset_id))
        if reason is None:
            return None
        row.purge_reason, row.purging_at = reason, datetime.now(UTC)
        row.data_key = None
        session.flush()
    return Doomed(
        id=row.id,
        tenant_id=row.tenant_id,
        reason=row.purge_reason,  # type: ignore[arg-type]  # only `begin` writes it
        key=row.key,
        digest=row.digest,
        sealed_sha256=row.sealed_sha256,
        key_destroyed_at=row.purging_at if row.sealed_sha256 else None,
    )


def begin_deletion(
    session: Session, tenant_id: str, dataset_id: str, settings: Settings
) -> Doomed | None:
    """Destroy the key of a data set that its owner wants deleted; None where it is purged already.

    Raises:
        NotFound: the tenant has none of this id, and never had.
        Conflict: unfinished jobs use it; the message names them.
    """
    own = (Dataset.id == dataset_id, Dataset.tenant_id == tenant_id)
    if session.scalar(select(Dataset.id).where(*own).with_for_update()) is None:
        purged = (DatasetPurge.dataset_id == dataset_id, DatasetPurge.tenant_id == tenant_id)
        if session.scalar(select(DatasetPurge.dataset_id).where(*purged)) is None:
            raise NotFound("dataset", dataset_id)
        return None
    uses = select(JobDataset.job_id).where(JobDataset.dataset_id == dataset_id)
    if users := unfinished(session, tenant_id, Job.id.in_(uses)):
        raise Conflict(
            f"The data set is needed by {users}; cancel what uses it, or wait for it to end."
        )
    return begin(session, dataset_id, settings, forced="deleted")


def receipt(session: Session, dataset_id: str) -> DatasetPurgeView:
    """Return what was deleted of a data set that is purged."""
    return purged_view(session.get_one(DatasetPurge, dataset_id))


def delete(storage: Storage, doomed: Doomed) -> Deleted:
    """Delete the object, and the predictions that were kept of it. Slow: hold no transaction.

    Raises:
        Unavailable: the storage does not answer, or still lists some of it.
    """
    archive = delete_all(storage, doomed.key)
    objects = [
        found.model_copy(update={"sha256": doomed.sealed_sha256}) for found in archive.objects
    ]
    if doomed.digest is not None:
        objects += delete_all(storage, cached_evaluations(doomed.tenant_id, doomed.digest)).objects
    note = {"dataset": doomed.id, "tenant": doomed.tenant_id}
    storage.put(f"{LIST_PREFIX}/{doomed.id}.json", json.dumps(note).encode())
    return Deleted(tuple(objects), archive.versions)


def finish(session: Session, doomed: Doomed, deleted: Deleted) -> None:
    """Write the receipt and drop the row. What a receipt says already stays in it.

    Of two relays at the same data set one comes first, and the other one finds nothing to do.
    """
    row = session.get(Dataset, doomed.id, with_for_update=True)
    if row is None and doomed.digest is not None:
        return
    now = datetime.now(UTC)
    receipt = session.get(DatasetPurge, doomed.id, with_for_update=True)
    objects = [found.model_dump(mode="json") for found in deleted.objects]
    if receipt is None:
        receipt = DatasetPurge(
            dataset_id=doomed.id,
            tenant_id=doomed.tenant_id,
            reason=doomed.reason,
            objects=[],
            key_destroyed_at=doomed.key_destroyed_at,
        )
        session.add(receipt)
    receipt.objects = [*receipt.objects, *objects]
    receipt.versions, receipt.verified_at = deleted.versions, now
    if row is not None:
        session.delete(row)
    detail = {
        "reason": doomed.reason,
        "objects": len(objects),
        "bytes": sum(found.bytes for found in deleted.objects),
    }
    entries.write(session, "dataset.purged", doomed.id, tenant_id=doomed.tenant_id, detail=detail)


def abandoned(tenant_id: str, dataset_id: str, reason: PurgeReason) -> Doomed:
    """Return an object that no row knows: its key was never stored, or is gone."""
    return Doomed(
        dataset_id,
        tenant_id,
        reason,
        f"tenants/{tenant_id}/datasets/{dataset_id}",
        None,
        None,
        None,
    )


def _reason(settings: Settings) -> ColumnElement[str | None]:
    """Return why a data set must go, as SQL; null where it must not."""
    uses = (
        select(JobDataset.job_id)
        .join(Job)
        .where(JobDataset.dataset_id == Dataset.id)
        .correlate(Dataset)
    )
    busy = uses.where(Job.finished_at.is_(None)).exists()
    used, goes = uses.exists(), uses.where(JobDataset.purged).exists()
    last_use = uses.with_only_columns(
        func.max(Job.finished_at), maintain_column_froms=True
    ).scalar_subquery()
    now = func.clock_timestamp()
    unused_since = now - timedelta(hours=settings.unused_upload_hours)
    kept_since = now - timedelta(days=settings.dataset_retention_days)
    explicitly_kept = Dataset.purge_after_job.is_(False)
    return case(
        (busy, null()),
        (goes, "job_ended"),
        (
            and_(~used, ~func.coalesce(explicitly_kept, False), Dataset.created_at < unused_since),
            "unused",
        ),
        (
            and_(
                or_(used, explicitly_kept), func.coalesce(last_use, Dataset.created_at) < kept_since
            ),
            "retention_ended",
        ),
        else_=null(),
    )
