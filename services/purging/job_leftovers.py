"""What a finished job leaves behind and must not, and the receipt for it. Data sets go by
`dataset_purge`.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from sqlalchemy import ARRAY, ColumnElement, Text, and_, false, func, or_, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from services.audit_log import entries
from services.deletion import Deleted, delete_all
from shared.errors import Conflict, NotFound
from shared.ports.object_storage import Storage
from shared.postgres.tables import Artifact, DatasetPurge, Job, JobDataset, JobPurge
from shared.schemas.purge import DatasetPurge as DatasetPurgeView
from shared.schemas.purge import PurgedObject, PurgeReceipt, Removal, RemovalReason
from shared.schemas.stored import stored
from shared.settings import Settings
from shared.states import JobState


@dataclass(frozen=True, slots=True)
class Ended:
    """A job that has ended, and what of it stays."""

    job_id: str
    tenant_id: str
    finished_at: datetime
    attempt: int | None
    """Whose artifacts stay; null where the job left none."""
    removed: frozenset[str] = frozenset()
    """Keys of artifacts that were removed since."""

    @property
    def job_prefix(self) -> str:
        """Object prefix of everything that belongs to the job."""
        return f"tenants/{self.tenant_id}/jobs/{self.job_id}"


Mark = tuple[datetime, str]
"""(finished_at, id) of the last job of a batch: the next one begins behind it."""
What = Literal["weights", "quarantined_weights", "report"]
"""Files of a job that can be removed."""
QUARANTINED, REPORTS = "quarantine/%", ("report.json", "report.html")


def unpurged(session: Session, after: Mark | None = None, limit: int = 20) -> list[Ended]:
    """Return finished jobs whose leftovers are still there, those that ended first."""
    return _ended(session, [Job.finished_at.is_not(None), Job.purged_at.is_(None)], after, limit)


def unsure(
    session: Session, seconds: float, after: Mark | None = None, limit: int = 20
) -> list[Ended]:
    """Return jobs that ended `seconds` ago and whose leftovers were last looked for before that, as
    `unpurged` does.

    An upload that was under way when its process was killed, or a process that was frozen
    meanwhile, writes after the end."""
    later = Job.finished_at + timedelta(seconds=seconds)
    looked = (
        select(JobPurge.job_id)
        .where(JobPurge.job_id == Job.id, JobPurge.verified_at < later)
        .exists()
    )
    overdue = [Job.purged_at.is_not(None), looked, later < func.clock_timestamp()]
    return _ended(session, overdue, after, limit)


def delete_leftovers(storage: Storage, ended: Ended) -> Deleted:
    """Delete every object of a job but those of the kept attempt. Slow: hold no transaction.

    Raises:
        Unavailable: the storage still lists some of them.
    """
    stays = None if ended.attempt is None else f"{ended.job_prefix}/{ended.attempt}"
    return delete_all(storage, ended.job_prefix, kept=stays, removed=ended.removed)


def remove_overdue(session: Session, settings: Settings, limit: int = 100) -> int:
    """Remove reports and quarantined weights whose time is over; return of how many jobs.

    From now on asking for them says that they were removed. Their objects go with the sweep of
    leftovers, which is owed again, and stand in the receipt. A report is what a certificate is
    made from: it stays while one is owed."""
    overdue = or_(
        and_(Artifact.name.like(QUARANTINED), _older(settings.quarantine_retention_days)),
        and_(
            Artifact.name.in_(REPORTS),
            _older(settings.report_retention_days),
            Job.certified_at.is_not(None),
        ),
    )
    found = (
        select(Artifact)
        .join(Job, Job.id == Artifact.job_id)
        .where(Artifact.removed_at.is_(None), overdue)
    )
    rows = session.scalars(
        found.order_by(Job.finished_at).limit(limit).with_for_update(skip_locked=True)
    ).all()
    for job_id in dict.fromkeys(row.job_id for row in rows):
        names = [row.name for row in rows if row.job_id == job_id]
        quarantined = any(name.startswith("quarantine/") for name in names)
        whats: list[What] = ["quarantined_weights"] if quarantined else []
        whats += ["report"] if set(names) & set(REPORTS) else []
        for what in whats:
            remove(session, job_id, what, "retention_ended")
        sweep_again(session, job_id)
    return len({row.job_id for row in rows})


def remove(session: Session, job_id: str, what: What, reason: RemovalReason) -> None:
    """Hand files of a job out no longer, and say so in its view. Whoever calls this deletes the
    objects.
    """
    job = session.scalars(select(Job).where(Job.id == job_id).with_for_update()).one()
    names = {
        "weights": Artifact.name.like("model/%"),
        "quarantined_weights": Artifact.name.like(QUARANTINED),
        "report": Artifact.name.in_(REPORTS),
    }
    now = datetime.now(UTC)
    own = (Artifact.job_id == job_id, Artifact.removed_at.is_(None), names[what])
    session.execute(update(Artifact).where(*own).values(removed_at=now, removal_reason=reason))
    entry = Removal(what=what, reason=reason, removed_at=now).model_dump(mode="json")
    job.removals, job.version = [*job.removals, entry], job.version + 1
    detail = {"what": what, "reason": reason}
    entries.write(session, "job.files_removed", job_id, tenant_id=job.tenant_id, detail=detail)


def sweep_again(session: Session, job_id: str) -> None:
    """Have a finished job's leftovers deleted once more: an attempt without a lease may have
    written meanwhile.
    """
    session.execute(update(Job).where(Job.id == job_id).values(purged_at=None))


def mark_purged(session: Session, ended: Ended, deleted: Deleted) -> None:
    """Note what was deleted, beside what was deleted before, and that nothing is left over."""
    now = func.clock_timestamp()
    objects = [found.model_dump(mode="json", exclude={"sha256"}) for found in deleted.objects]
    row = insert(JobPurge).values(
        job_id=ended.job_id,
        tenant_id=ended.tenant_id,
        objects=objects,
        versions=deleted.versions,
        verified_at=now,
    )
    more = {
        "objects": JobPurge.objects.op("||")(row.excluded.objects),
        "versions": row.excluded.versions,
        "verified_at": now,
    }
    session.execute(row.on_conflict_do_update(index_elements=[JobPurge.job_id], set_=more))
    session.execute(update(Job).where(Job.id == ended.job_id).values(purged_at=now))
    detail = {"objects": len(objects), "bytes": sum(found.bytes for found in deleted.objects)}
    entries.write(session, "job.purged", ended.job_id, tenant_id=ended.tenant_id, detail=detail)


def mark_looked(session: Session, job_id: str) -> None:
    """Note that nothing had been written since the leftovers were deleted."""
    session.execute(
        update(JobPurge).where(JobPurge.job_id == job_id).values(verified_at=func.clock_timestamp())
    )


def receipt(session: Session, tenant_id: str, job_id: str) -> PurgeReceipt:
    """Return what was deleted after a job, as far as it has come.

    Raises:
        NotFound: the tenant has none of this id.
        Conflict: it has not ended, so that everything is still needed.
    """
    job = session.scalar(select(Job).where(Job.id == job_id, Job.tenant_id == tenant_id))
    if job is None:
        raise NotFound("job", job_id)
    if not JobState(job.state).final:
        raise Conflict(f"The job is {job.state}; what it needs is purged when it has ended.")
    own = session.get(JobPurge, job_id)
    datasets = _datasets(session, job_id)
    return PurgeReceipt(
        job=job_id,
        complete=job.purged_at is not None and all(entry.state != "waiting" for entry in datasets),
        leftovers=tuple(stored(PurgedObject, found) for found in own.objects) if own else (),
        versions=own.versions if own else None,
        listing_empty_at=own.verified_at if own else None,
        key_destroyed_at=job.key_destroyed_at,
        datasets=datasets,
    )


def _ended(
    session: Session, wanted: list[ColumnElement[bool]], after: Mark | None, limit: int
) -> list[Ended]:
    """Return jobs by their columns alone: what else is stored of them need not be readable any
    more.
    """
    own = Artifact.job_id == Job.id
    winner = select(Artifact.attempt).where(own).limit(1).scalar_subquery()
    keys = select(func.array_agg(Artifact.key, type_=ARRAY(Text))).where(
        own, Artifact.removed_at.is_not(None)
    )
    query = select(Job.id, Job.tenant_id, Job.finished_at, winner, keys.scalar_subquery()).where(
        *wanted
    )
    if after is not None:
        query = query.where(tuple_(Job.finished_at, Job.id) > tuple_(*after))
    rows = session.execute(query.order_by(Job.finished_at, Job.id).limit(limit))
    return [Ended(row[0], row[1], row[2], row[3], frozenset(row[4] or ())) for row in rows]


def _older(days: float | None) -> ColumnElement[bool]:
    if days is None:
        return false()
    return Job.finished_at < func.clock_timestamp() - timedelta(days=days)


def _datasets(session: Session, job_id: str) -> tuple[DatasetPurgeView, ...]:
    uses = select(JobDataset, DatasetPurge).outerjoin(
        DatasetPurge, DatasetPurge.dataset_id == JobDataset.dataset_id
    )
    rows = session.execute(uses.where(JobDataset.job_id == job_id).order_by(JobDataset.dataset_id))
    return tuple(_view(use, purge) for use, purge in rows)


def _view(use: JobDataset, purge: DatasetPurge | None) -> DatasetPurgeView:
    if purge is None:
        return DatasetPurgeView(dataset=use.dataset_id, state="waiting" if use.purged else "kept")
    return purged_view(purge)


def purged_view(purge: DatasetPurge) -> DatasetPurgeView:
    """Return the receipt of a data set."""
    values: dict[str, str | datetime | object] = {
        "dataset": purge.dataset_id,
        "state": "purged",
        "reason": purge.reason,
        "objects": purge.objects,
        "versions": purge.versions,
        "key_destroyed_at": purge.key_destroyed_at,
        "listing_empty_at": purge.verified_at,
    }
    return stored(DatasetPurgeView, values)
