"""What a finished job leaves behind and must not, and the receipt for it. Data sets go by `dataset_purge`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Select, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from services import audit_log
from shared.errors import Conflict, NotFound, Unavailable
from shared.schemas.purge import DatasetPurge as DatasetPurgeView
from shared.schemas.purge import PurgedObject, PurgeReceipt
from shared.schemas.spec import DataSources, JobSpec
from shared.states import JobState
from shared.storage import Storage
from shared.tables import Artifact, DatasetPurge, Job, JobDataset, JobPurge
from shared.versions import Versions, delete_versions


@dataclass(frozen=True, slots=True)
class Deleted:
    """What was deleted from the storage, and what was seen there afterwards."""

    objects: tuple[PurgedObject, ...]
    versions: Versions


def link(session: Session, job_id: str, data: DataSources) -> None:
    """Write down which uploaded data sets a new job uses, and which of them go with it."""
    uses: dict[str, bool] = {}
    for source in data.all():
        if source.id is not None:
            uses[source.id] = uses.get(source.id, False) or source.purged
    session.add_all(JobDataset(job_id=job_id, dataset_id=i, purged=purged) for i, purged in uses.items())


def users_of(session: Session, dataset_id: str) -> Sequence[str]:
    """Return the jobs that use, or have used, an uploaded data set."""
    return session.scalars(select(JobDataset.job_id).where(JobDataset.dataset_id == dataset_id)).all()


def unpurged(session: Session, limit: int = 20) -> list[tuple[JobSpec, int | None]]:
    """Return finished jobs whose leftovers are still there, each with the attempt whose artifacts stay."""
    query = _with_winner().where(Job.finished_at.is_not(None), Job.purged_at.is_(None))
    return _specs(session, query.order_by(Job.finished_at).limit(limit))


def unsure(session: Session, seconds: float, limit: int = 20) -> list[tuple[JobSpec, int | None]]:
    """Return jobs that ended `seconds` ago and whose leftovers were last looked for before that, as `unpurged` does.

    An upload that was under way when its process was killed, or a process that was frozen meanwhile, writes after the end.
    """
    later = Job.finished_at + timedelta(seconds=seconds)
    query = _with_winner().join(JobPurge, JobPurge.job_id == Job.id)
    overdue = query.where(Job.purged_at.is_not(None), JobPurge.verified_at < later, later < func.clock_timestamp())
    return _specs(session, overdue.order_by(Job.finished_at).limit(limit))


def delete_leftovers(storage: Storage, spec: JobSpec, kept_attempt: int | None) -> Deleted:
    """Delete every object of a job but those of the kept attempt. Slow: hold no transaction.

    Raises:
        Unavailable: the storage still lists some of them.
    """
    stays = None if kept_attempt is None else f"{spec.job_prefix}/{kept_attempt}"
    return delete_all(storage, spec.job_prefix, kept=stays)


def delete_all(storage: Storage, prefix: str, kept: str | None = None) -> Deleted:
    """Delete an object, or what is below a prefix, with all versions, and look that it is gone. `kept` stays.

    Raises:
        Unavailable: the storage still lists some of it.
    """
    gone = _listed(storage, prefix, kept)
    for found in gone:
        storage.delete(found.key)
    versions = delete_versions(storage.url, prefix, kept)
    if left := _listed(storage, prefix, kept):
        raise Unavailable(f"The object storage still lists {left[0].key!r} after it was deleted.")
    return Deleted(gone, versions)


def sweep_again(session: Session, job_id: str) -> None:
    """Have a finished job's leftovers deleted once more: an attempt without a lease may have written meanwhile."""
    session.execute(update(Job).where(Job.id == job_id).values(purged_at=None))


def mark_purged(session: Session, spec: JobSpec, deleted: Deleted) -> None:
    """Note what was deleted, beside what was deleted before, and that nothing is left over."""
    now = func.clock_timestamp()
    objects = [found.model_dump(mode="json", exclude={"sha256"}) for found in deleted.objects]
    row = insert(JobPurge).values(
        job_id=spec.job_id, tenant_id=spec.tenant_id, objects=objects, versions=deleted.versions, verified_at=now
    )
    more = {
        "objects": JobPurge.objects.op("||")(row.excluded.objects),
        "versions": row.excluded.versions,
        "verified_at": now,
    }
    session.execute(row.on_conflict_do_update(index_elements=[JobPurge.job_id], set_=more))
    session.execute(update(Job).where(Job.id == spec.job_id).values(purged_at=now))
    detail = {"objects": len(objects), "bytes": sum(found.bytes for found in deleted.objects)}
    audit_log.write(session, "job.purged", spec.job_id, tenant_id=spec.tenant_id, detail=detail)


def mark_looked(session: Session, job_id: str) -> None:
    """Note that nothing had been written since the leftovers were deleted."""
    session.execute(update(JobPurge).where(JobPurge.job_id == job_id).values(verified_at=func.clock_timestamp()))


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
        leftovers=tuple(PurgedObject.model_validate(found) for found in own.objects) if own else (),
        versions=own.versions if own else None,
        listing_empty_at=own.verified_at if own else None,
        datasets=datasets,
    )


def _with_winner() -> Select[tuple[dict[str, Any], int]]:
    winner = select(Artifact.attempt).where(Artifact.job_id == Job.id).limit(1).scalar_subquery()
    return select(Job.spec, winner)


def _specs(session: Session, query: Select[tuple[dict[str, Any], int]]) -> list[tuple[JobSpec, int | None]]:
    return [(JobSpec.model_validate(spec), attempt) for spec, attempt in session.execute(query)]


def _datasets(session: Session, job_id: str) -> tuple[DatasetPurgeView, ...]:
    uses = select(JobDataset, DatasetPurge).outerjoin(DatasetPurge, DatasetPurge.dataset_id == JobDataset.dataset_id)
    rows = session.execute(uses.where(JobDataset.job_id == job_id).order_by(JobDataset.dataset_id))
    return tuple(_view(use, purge) for use, purge in rows)


def _view(use: JobDataset, purge: DatasetPurge | None) -> DatasetPurgeView:
    if purge is None:
        return DatasetPurgeView(dataset=use.dataset_id, state="waiting" if use.purged else "kept")
    values: dict[str, str | datetime | object] = {
        "dataset": use.dataset_id,
        "state": "purged",
        "reason": purge.reason,
        "objects": purge.objects,
        "versions": purge.versions,
        "key_destroyed_at": purge.key_destroyed_at,
        "listing_empty_at": purge.verified_at,
    }
    return DatasetPurgeView.model_validate(values)


def _listed(storage: Storage, prefix: str, kept: str | None) -> tuple[PurgedObject, ...]:
    """Return what is listed. JuiceFS lists the folders that were there, too: without a byte, they hold nothing."""
    return tuple(
        PurgedObject(key=found.key, bytes=found.size)
        for found in storage.find(prefix)
        if found.size and not (kept and found.key.startswith(f"{kept}/"))
    )
