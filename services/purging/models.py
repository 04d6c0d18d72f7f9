"""Deleting models: nobody can use one any more, its files go, a receipt says so.

Three steps, each of which may be done again after a crash, as with data sets (`dataset_purge`):
`begin` marks the row in one transaction, from then on no job can take the model; `delete` takes
the files; `finish` writes the receipt. The row stays, for jobs, certificates and the line of
parents name it."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.orm import Session

from services.audit_log import entries
from services.deletion import Deleted, delete_all
from services.jobs.data_used import unfinished
from services.purging import job_leftovers
from services.purging.datasets import LIST_PREFIX
from shared.errors import Conflict, NotFound
from shared.ports.object_storage import Storage
from shared.postgres.tables import Artifact, Job, Model, ModelPurge
from shared.schemas.purge import ModelPurge as ModelPurgeView
from shared.schemas.purge import PurgedObject
from shared.schemas.stored import stored

STORED = "storage:"


@dataclass(frozen=True, slots=True)
class DoomedModel:
    """A model that nobody can use any more."""

    id: str
    tenant_id: str
    prefix: str | None
    """Where its files are; None where it is only a reference to somewhere else."""


def begin(session: Session, tenant_id: str, model_id: str, *, forced: bool = False) -> DoomedModel:
    """Mark a model as deleted. One that is marked already is returned as it is.

    Whoever submits a job holds a share of the row, and is seen here only once the row is locked:
    two statements.

    Args:
        session: its transaction.
        tenant_id: whose it is.
        model_id: which.
        forced: also where an unfinished job uses it, which will fail.

    Raises:
        NotFound: the tenant has none of this id.
        Conflict: unfinished jobs use it; the message names them.
    """
    own = select(Model).where(Model.id == model_id, Model.tenant_id == tenant_id)
    row = session.scalar(own.with_for_update())
    if row is None:
        raise NotFound("model", model_id)
    prefix = row.reference.removeprefix(STORED) if row.reference.startswith(STORED) else None
    if row.deleted_at is None:
        users = unfinished(session, tenant_id, _uses(model_id))
        if users and not forced:
            raise Conflict(
                f"The model is needed by {users}; cancel what uses it, or wait for it to end."
            )
        row.deleted_at = datetime.now(UTC)
        if row.job_id is not None and prefix is not None:
            _withdraw(session, row.job_id)
    return DoomedModel(model_id, tenant_id, prefix)


def delete(storage: Storage, doomed: DoomedModel) -> Deleted:
    """Delete the files. Slow: hold no transaction.

    Raises:
        Unavailable: the storage does not answer, or still lists some of them.
    """
    if doomed.prefix is None:
        return Deleted((), "none")
    deleted = delete_all(storage, doomed.prefix)
    note = {"model": doomed.id, "tenant": doomed.tenant_id, "prefix": doomed.prefix}
    storage.put(f"{LIST_PREFIX}/{doomed.id}.json", json.dumps(note).encode())
    return deleted


def finish(session: Session, doomed: DoomedModel, deleted: Deleted) -> ModelPurgeView:
    """Write the receipt and return it. What a receipt says already stays in it."""
    row = session.get(Model, doomed.id, with_for_update=True)
    purge = session.get(ModelPurge, doomed.id, with_for_update=True)
    objects = [found.model_dump(mode="json", exclude={"sha256"}) for found in deleted.objects]
    first = purge is None
    if purge is None:
        purge = ModelPurge(
            model_id=doomed.id, tenant_id=doomed.tenant_id, prefix=doomed.prefix, objects=[]
        )
        session.add(purge)
    purge.objects = [*purge.objects, *objects]
    purge.versions, purge.verified_at = deleted.versions, datetime.now(UTC)
    if row is not None:
        row.size_bytes = None  # it takes no room any more; the receipt has the sizes
    if first or objects:
        detail = {"objects": len(objects), "bytes": sum(found.bytes for found in deleted.objects)}
        entries.write(
            session, "model.deleted", doomed.id, tenant_id=doomed.tenant_id, detail=detail
        )
    session.flush()
    return _view(session, purge, row)


def pending(session: Session, limit: int = 20) -> list[DoomedModel]:
    """Return models that were marked, and whose files may still be there."""
    done = select(ModelPurge.model_id).where(ModelPurge.model_id == Model.id).exists()
    query = (
        select(Model)
        .where(Model.deleted_at.is_not(None), ~done)
        .order_by(Model.deleted_at, Model.id)
    )
    rows = session.scalars(query.limit(limit)).all()
    return [begin(session, row.tenant_id, row.id) for row in rows]


def _uses(model_id: str) -> ColumnElement[bool]:
    """The model that is edited, or the one that it is compared with."""
    return or_(Job.model_id == model_id, Job.spec["reference"]["id"].astext == model_id)


def _withdraw(session: Session, job_id: str) -> None:
    """Have the job that published a model hand its weights out no longer."""
    published = (
        Artifact.job_id == job_id,
        Artifact.name.like("model/%"),
        Artifact.removed_at.is_(None),
    )
    if session.scalar(select(Artifact.name).where(*published).limit(1)) is not None:
        job_leftovers.remove(session, job_id, "weights", "model_deleted")


def _view(session: Session, purge: ModelPurge, row: Model | None) -> ModelPurgeView:
    live = (Model.parent_id == purge.model_id, Model.deleted_at.is_(None))
    return ModelPurgeView(
        model=purge.model_id,
        deleted_at=(row.deleted_at if row is not None else None) or purge.verified_at,
        objects=tuple(stored(PurgedObject, found) for found in purge.objects),
        versions=purge.versions,
        listing_empty_at=purge.verified_at,
        children=tuple(session.scalars(select(Model.id).where(*live).order_by(Model.id))),
    )
