"""Deletes what must not stay: leftovers of finished jobs, data sets whose time is over, deleted
models, objects that no row knows.

The backstop of every purge, and where it runs: what a crash interrupts is taken up again from
the rows. One thing that cannot be deleted, whatever the reason, is logged with its key and holds
up no other."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import structlog

from services import deletion
from services.jobs import data_used, outbox
from services.purging import datasets, job_leftovers, models, orphans
from services.purging.datasets import Doomed
from services.purging.job_leftovers import Ended, Mark
from services.purging.models import DoomedModel
from services.purging.orphans import WORDS, Orphan
from shared.errors import EffaceError, Unavailable
from shared.ports.object_storage import Storage
from shared.postgres.database import Database
from shared.schemas.purge import ModelPurge
from shared.settings import Settings

log = structlog.get_logger()

Work = tuple[str, Callable[[], bool]]
"""What it is about, and what does it; false where there was nothing to do."""


def sweep(database: Database, storage: Storage, settings: Settings) -> int:
    """Delete everything that is due; return of how many things. Each kind is tried, also where one
    before it has failed.

    Raises:
        EffaceError: some could not be deleted; the others were.
    """
    kinds: list[Work] = [
        ("removals", lambda: bool(_remove(database, settings))),
        ("jobs", lambda: bool(sweep_jobs(database, storage))),
        ("datasets", lambda: bool(sweep_datasets(database, storage, settings))),
        ("models", lambda: bool(sweep_models(database, storage))),
        ("stragglers", lambda: bool(sweep_stragglers(database, storage, settings))),
    ]
    return _each(kinds)


def sweep_jobs(database: Database, storage: Storage) -> int:
    """Delete the leftovers of finished jobs; return of how many.

    Raises:
        EffaceError: some could not be deleted; the others were.
    """

    def due(after: Mark | None) -> list[Ended]:
        with database.transaction() as session:
            return job_leftovers.unpurged(session, after)

    def work(ended: Ended) -> bool:
        deleted = job_leftovers.delete_leftovers(storage, ended)
        with database.transaction() as session:
            job_leftovers.mark_purged(session, ended, deleted)
            outbox.owe(session, [ended.job_id])
        log.info("job.leftovers_deleted", job_id=ended.job_id, objects=len(deleted.objects))
        return True

    return _each((ended.job_prefix, partial(work, ended)) for ended in _batches(due))


def sweep_stragglers(database: Database, storage: Storage, settings: Settings) -> int:
    """Look once more for leftovers, two leases after each job's end, by when nobody writes any
    more; return at how many jobs.

    Raises:
        EffaceError: some could not be deleted; the others were.
    """

    def due(after: Mark | None) -> list[Ended]:
        with database.transaction() as session:
            return job_leftovers.unsure(session, 2 * settings.lease_seconds, after)

    def work(ended: Ended) -> bool:
        deleted = job_leftovers.delete_leftovers(storage, ended)
        with database.transaction() as session:
            if deleted.objects:
                job_leftovers.mark_purged(session, ended, deleted)
                log.warning(
                    "job.stragglers_deleted", job_id=ended.job_id, objects=len(deleted.objects)
                )
            else:
                job_leftovers.mark_looked(session, ended.job_id)
        return True

    return _each((ended.job_prefix, partial(work, ended)) for ended in _batches(due))


def sweep_datasets(database: Database, storage: Storage, settings: Settings) -> int:
    """Purge the data sets whose time is over; return how many.

    Raises:
        EffaceError: some could not be purged; the others were.
    """
    tried: list[str] = []

    def due() -> Iterator[str]:
        while True:
            with database.transaction() as session:
                found = datasets.due(session, settings, tried)
            if not found:
                return
            tried.extend(found)
            yield from found

    def work(dataset_id: str) -> bool:
        with database.transaction() as session:
            doomed = datasets.begin(session, dataset_id, settings)
        if doomed is not None:
            purge(database, storage, doomed)
        return doomed is not None

    return _each((dataset_id, partial(work, dataset_id)) for dataset_id in due())


def sweep_models(database: Database, storage: Storage) -> int:
    """Delete the files of models that are marked as deleted, where whoever marked them did not come
    so far; return of how many.

    Raises:
        EffaceError: some could not be deleted; the others were.
    """
    with database.transaction() as session:
        pending = models.pending(session)

    def work(doomed: DoomedModel) -> bool:
        purge_model(database, storage, doomed)
        return True

    return _each((doomed.id, partial(work, doomed)) for doomed in pending)


def sweep_abandoned(database: Database, storage: Storage) -> int:
    """Delete objects that no row knows, such as uploads that died between storage and commit.
    Return of how many things.

    Raises:
        EffaceError: some could not be deleted; the others were.
    """

    def work(orphan: Orphan) -> bool:
        if orphan.kind == "foreign":
            log.warning("sweep.foreign_object", key=orphan.prefix)
            return False
        if orphan.kind == "dataset":
            purge(database, storage, datasets.abandoned(orphan.tenant_id, orphan.id, "abandoned"))
            return True
        deleted = deletion.delete_all(storage, orphan.prefix)
        log.warning(
            "sweep.orphan_deleted",
            key=orphan.prefix,
            why=WORDS[orphan.kind],
            objects=len(deleted.objects),
        )
        return True

    return _each(
        (orphan.prefix, partial(work, orphan)) for orphan in orphans.find(database, storage)
    )


def purge(database: Database, storage: Storage, doomed: Doomed) -> None:
    """Delete the bytes of a data set whose key is destroyed, and write the receipt."""
    deleted = datasets.delete(storage, doomed)
    with database.transaction() as session:
        datasets.finish(session, doomed, deleted)
        outbox.owe(session, data_used.users_of(session, doomed.id))
    log.info(
        "dataset.purged", dataset_id=doomed.id, reason=doomed.reason, objects=len(deleted.objects)
    )


def purge_model(database: Database, storage: Storage, doomed: DoomedModel) -> ModelPurge:
    """Delete the files of a model that is marked as deleted, write the receipt and return it."""
    deleted = models.delete(storage, doomed)
    with database.transaction() as session:
        receipt = models.finish(session, doomed, deleted)
    log.info("model.deleted", model_id=doomed.id, objects=len(deleted.objects))
    return receipt


def _remove(database: Database, settings: Settings) -> int:
    with database.transaction() as session:
        return job_leftovers.remove_overdue(session, settings)


def _batches(due: Callable[[Mark | None], list[Ended]]) -> Iterator[Ended]:
    """Yield everything that is due, each once: what fails is not met again before the next
    sweep.
    """
    after: Mark | None = None
    while batch := due(after):
        yield from batch
        after = (batch[-1].finished_at, batch[-1].job_id)


def _each(works: Iterable[Work]) -> int:
    """Do every work, so that one that fails holds up no other, and return how many did something;
    then fail.

    Raises:
        Unavailable: with the number of those that failed, and what the first one said.
    """
    done, failures = 0, []
    for key, work in works:
        try:
            done += work()
        except EffaceError as error:
            log.warning("sweep.failed", key=key, error=error.detail)
            failures.append(f"{key}: {error.detail}")
        except Exception as error:  # whatever one of them has in store, the others must be swept
            log.exception("sweep.failed", key=key)
            failures.append(f"{key}: {type(error).__name__}: {error}")
    if failures:
        raise Unavailable(f"{len(failures)} could not be swept; the first is {failures[0]}")
    return done
