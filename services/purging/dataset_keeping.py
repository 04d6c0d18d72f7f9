"""How long data sets are kept, as people ask for it, and the receipts of those that went.
`dataset_purge` purges them.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from services.purging.job_leftovers import purged_view
from shared.postgres.tables import DatasetPurge, Job, JobDataset
from shared.schemas.dataset import DatasetView
from shared.schemas.purge import DatasetPurge as DatasetPurgeView
from shared.settings import Settings


@dataclass(frozen=True, slots=True)
class Keeping:
    """Until when a data set is kept, and why."""

    why: Literal["in_use", "going", "unused", "retention"]
    """An erasure uses it; the relay is about to purge it; no erasure has used it yet; it was
    used, or is kept on demand.
    """
    until: datetime | None
    """Null where it is kept for as long as something needs it, or is going now."""
    goes_with_job: bool
    jobs: tuple[str, ...]
    """Unfinished jobs that use it."""


def of(session: Session, found: Sequence[DatasetView], settings: Settings) -> dict[str, Keeping]:
    """Return how long each of these data sets is kept."""
    uses: dict[str, list[tuple[JobDataset, Job]]] = defaultdict(list)
    ids = [one.id for one in found]
    query = (
        select(JobDataset, Job)
        .join(Job, Job.id == JobDataset.job_id)
        .where(JobDataset.dataset_id.in_(ids))
    )
    for use, job in session.execute(query) if ids else ():
        uses[use.dataset_id].append((use, job))
    return {one.id: _keeping(one, uses[one.id], settings) for one in found}


def receipts(session: Session, tenant_id: str, limit: int = 50) -> list[DatasetPurgeView]:
    """Return the receipts of a tenant's purged data sets, the newest first."""
    query = (
        select(DatasetPurge)
        .where(DatasetPurge.tenant_id == tenant_id)
        .order_by(DatasetPurge.verified_at.desc())
    )
    return [purged_view(row) for row in session.scalars(query.limit(limit))]


def receipt(session: Session, tenant_id: str, dataset_id: str) -> DatasetPurgeView | None:
    """Return the receipt of a data set of the tenant's that is purged, None where there is none."""
    own = (DatasetPurge.tenant_id == tenant_id, DatasetPurge.dataset_id == dataset_id)
    row = session.scalar(select(DatasetPurge).where(*own))
    return purged_view(row) if row else None


def _keeping(
    one: DatasetView, uses: Collection[tuple[JobDataset, Job]], settings: Settings
) -> Keeping:
    """Say the same as `dataset_purge` does in SQL."""
    busy = tuple(sorted(job.id for _, job in uses if job.finished_at is None))
    goes = any(use.purged for use, _ in uses) or one.purge_after_job is True
    if busy:
        return Keeping("in_use", None, goes, busy)
    if any(use.purged for use, _ in uses):
        return Keeping("going", None, True, ())
    if not uses and one.purge_after_job is not False:
        return Keeping(
            "unused", one.created_at + timedelta(hours=settings.unused_upload_hours), goes, ()
        )
    last = max(
        (job.finished_at for _, job in uses if job.finished_at is not None), default=one.created_at
    )
    return Keeping("retention", last + timedelta(days=settings.dataset_retention_days), goes, ())
