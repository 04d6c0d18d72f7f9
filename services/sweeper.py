"""Deletes what must not stay: leftovers of finished jobs, data sets whose time is over, objects that no row knows.

The backstop of every purge, and where it runs: what a crash interrupts is taken up again from the rows.
"""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from functools import partial

import structlog
from sqlalchemy import select

from services import dataset_purge, evidence, retention
from services.dataset_purge import Doomed
from shared.database import Database
from shared.errors import EffaceError
from shared.ids import created_at
from shared.schemas.spec import JobSpec
from shared.settings import Settings
from shared.storage import Storage
from shared.tables import Dataset, Tenant

log = structlog.get_logger()


def sweep_jobs(database: Database, storage: Storage) -> int:
    """Delete the leftovers of finished jobs; return of how many.

    Raises:
        EffaceError: some could not be deleted; the others were.
    """
    with database.transaction() as session:
        finished = retention.unpurged(session)

    def sweep(spec: JobSpec, attempt: int | None) -> bool:
        deleted = retention.delete_leftovers(storage, spec, attempt)
        with database.transaction() as session:
            retention.mark_purged(session, spec, deleted)
            evidence.owe(session, [spec.job_id])
        log.info("job.leftovers_deleted", job_id=spec.job_id, objects=len(deleted.objects))
        return True

    return _each(partial(sweep, spec, attempt) for spec, attempt in finished)


def sweep_stragglers(database: Database, storage: Storage, settings: Settings) -> int:
    """Look once more for leftovers, two leases after each job's end, by when nobody writes any more; return at how many jobs.

    Raises:
        EffaceError: some could not be deleted; the others were.
    """
    with database.transaction() as session:
        unsure = retention.unsure(session, 2 * settings.lease_seconds)

    def look(spec: JobSpec, attempt: int | None) -> bool:
        deleted = retention.delete_leftovers(storage, spec, attempt)
        with database.transaction() as session:
            if deleted.objects:
                retention.mark_purged(session, spec, deleted)
                log.warning("job.stragglers_deleted", job_id=spec.job_id, objects=len(deleted.objects))
            else:
                retention.mark_looked(session, spec.job_id)
        return True

    return _each(partial(look, spec, attempt) for spec, attempt in unsure)


def sweep_datasets(database: Database, storage: Storage, settings: Settings) -> int:
    """Purge the data sets whose time is over; return how many.

    Raises:
        EffaceError: some could not be purged; the others were.
    """
    with database.transaction() as session:
        due = dataset_purge.due(session, settings)

    def sweep(dataset_id: str) -> bool:
        with database.transaction() as session:
            doomed = dataset_purge.begin(session, dataset_id, settings)
        if doomed is not None:
            purge(database, storage, doomed)
        return doomed is not None

    return _each(partial(sweep, dataset_id) for dataset_id in due)


def sweep_abandoned(database: Database, storage: Storage, settings: Settings) -> int:
    """Delete archives that no row knows: uploads that died between storage and commit. Return how many.

    A young one may belong to an upload that has not committed yet.
    """
    deleted = 0
    before = datetime.now(UTC) - timedelta(hours=settings.unused_upload_hours)
    with database.transaction() as session:
        tenants = session.scalars(select(Tenant.id)).all()
    for tenant_id in tenants:
        stored = {found.key.rsplit("/", 1)[1] for found in storage.list(f"tenants/{tenant_id}/datasets") if found.size}
        with database.transaction() as session:
            known = set(session.scalars(select(Dataset.id).where(Dataset.tenant_id == tenant_id)))
        for dataset_id in sorted(stored - known):
            if created_at(dataset_id) < before:
                purge(database, storage, dataset_purge.abandoned(tenant_id, dataset_id, "abandoned"))
                deleted += 1
    return deleted


def purge(database: Database, storage: Storage, doomed: Doomed) -> None:
    """Delete the bytes of a data set whose key is destroyed, and write the receipt."""
    deleted = dataset_purge.delete(storage, doomed)
    with database.transaction() as session:
        dataset_purge.finish(session, doomed, deleted)
        evidence.owe(session, retention.users_of(session, doomed.id))
    log.info("dataset.purged", dataset_id=doomed.id, reason=doomed.reason, objects=len(deleted.objects))


def _each(works: Iterable[Callable[[], bool]]) -> int:
    """Do every work, so that one that fails holds up no other, and return how many did something; then fail."""
    done, failure = 0, None
    for work in works:
        try:
            done += work()
        except EffaceError as error:
            failure = error
    if failure is not None:
        raise failure
    return done
