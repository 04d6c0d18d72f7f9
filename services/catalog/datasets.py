"""Data sets: checked before they are accepted, then kept as they came."""

import base64
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from services.audit_log import entries
from services.pages import Page, page_of
from shared.crypto.archive_encryption import Sealer
from shared.errors import InvalidRequest, NotFound
from shared.files.image_archives import ArchiveLimits, ArchiveSummary, inspect_archive
from shared.ids import new_id
from shared.ports.object_storage import Storage, chunks_of, hashed
from shared.postgres.tables import Dataset
from shared.schemas.dataset import DatasetView
from shared.schemas.spec import DataSource, JobSpec
from shared.settings import Settings


@dataclass(frozen=True, slots=True)
class Stored:
    """A sealed archive in the storage that no row knows of yet."""

    dataset_id: str
    key: str
    data_key: bytes
    """Sealed with the master key."""
    sealed_sha256: str


Check = Callable[..., ArchiveSummary]
"""What checks an archive, as `inspect_archive` does."""


def inspect(
    path: Path, settings: Settings, check: Check = inspect_archive, *, skip_invalid: bool = False
) -> ArchiveSummary:
    """Return what an archive holds; slow for a large one, so do it outside of a transaction.

    With `skip_invalid`, what cannot be used is left out and counted.

    Raises:
        InvalidRequest: it breaks a rule; the detail names the member.
    """
    try:
        return check(path, ArchiveLimits.of(settings), skip_invalid=skip_invalid)
    except InvalidRequest as error:
        raise error.under("/file") from error


def prefix(tenant_id: str, dataset_id: str) -> str:
    """Return where the archive of a data set is."""
    return f"tenants/{tenant_id}/datasets/{dataset_id}"


def store(
    storage: Storage, tenant_id: str, path: Path, settings: Settings, dataset_id: str | None = None
) -> Stored:
    """Seal an inspected archive into the storage, under a key of its own. The row comes after the
    bytes.

    Raises:
        Unavailable: the storage does not answer, or there is no master key.
    """
    sealer = Sealer.of(settings)
    dataset_id = dataset_id or new_id("ds")
    data_key = sealer.new_key(dataset_id)
    digest = hashlib.sha256()
    key = prefix(tenant_id, dataset_id)
    storage.put(key, hashed(sealer.seal(chunks_of(path), data_key, dataset_id), digest))
    return Stored(dataset_id, key, data_key, digest.hexdigest())


def add(
    session: Session,
    *,
    tenant_id: str,
    stored: Stored,
    name: str,
    size_bytes: int,
    summary: ArchiveSummary,
    purge_after_job: bool | None = None,
) -> DatasetView:
    """Write the row of a stored archive.

    Args:
        session: its transaction.
        tenant_id: whose it is.
        stored: where it is.
        name: what its owner calls it.
        size_bytes: of the archive.
        summary: what is in it.
        purge_after_job: true: it goes with the last job that uses it; false: it lives for the
            retention period; None: the first where a job forgets it, else the second.
    """
    row = Dataset(
        id=stored.dataset_id,
        tenant_id=tenant_id,
        name=name,
        format=summary.format,
        key=stored.key,
        data_key=stored.data_key,
        sealed_sha256=stored.sealed_sha256,
        purge_after_job=purge_after_job,
        digest=summary.sha256,
        size_bytes=size_bytes,
        images=summary.images,
        classes=summary.classes,
        understood={
            "layout": summary.layout,
            "left_out": summary.left_out,
            "skipped": summary.skipped,
            "warnings": summary.warnings,
        },
    )
    session.add(row)
    session.flush()
    session.refresh(row)
    detail = {"images": summary.images, "sealed_sha256": stored.sealed_sha256}
    entries.write(session, "dataset.uploaded", row.id, tenant_id=tenant_id, detail=detail)
    return view(row)


def find(session: Session, tenant_id: str, dataset_id: str) -> Dataset | None:
    """Return a tenant's data set, or None; one that is being purged is not there any more."""
    return session.scalar(_of(tenant_id, dataset_id))


def find_for_use(session: Session, tenant_id: str, dataset_id: str) -> Dataset | None:
    """Return a tenant's data set, which cannot be purged before the transaction ends; or None."""
    return session.scalar(_of(tenant_id, dataset_id).with_for_update(read=True))


def with_keys(session: Session, spec: JobSpec) -> JobSpec:
    """Return a job with the sealed keys of its data sets, for the worker that has it. They are
    stored nowhere else.
    """
    ids = {source.id for source in spec.data.all() if source.id is not None}
    rows = (
        session.execute(select(Dataset.id, Dataset.data_key).where(Dataset.id.in_(ids)))
        if ids
        else ()
    )
    keys = {
        dataset_id: base64.b64encode(key).decode() for dataset_id, key in rows if key is not None
    }

    def with_key(source: DataSource) -> DataSource:
        return source.model_copy(update={"data_key": keys.get(source.id)}) if source.id else source

    return spec.model_copy(update={"data": spec.data.mapped(with_key)})


def with_opened_keys(spec: JobSpec, settings: Settings) -> JobSpec:
    """Return a job with its own key and those of its data sets opened, for the process that works
    on it and has no master key.

    Raises:
        Unavailable: there is no master key, or not the one that sealed a key.
    """

    def opened(data_key: str, name: str) -> str:
        key = Sealer.of(settings).opened(base64.b64decode(data_key), name)
        return base64.b64encode(key).decode()

    def with_opened(source: DataSource) -> DataSource:
        if source.data_key is None or source.id is None:
            return source
        return source.model_copy(update={"data_key": opened(source.data_key, source.id)})

    own = opened(spec.data_key, spec.job_id) if spec.data_key else None
    return spec.model_copy(update={"data": spec.data.mapped(with_opened), "data_key": own})


def get(session: Session, tenant_id: str, dataset_id: str) -> DatasetView:
    """Return one data set.

    Raises:
        NotFound: the tenant has none of this id.
    """
    row = find(session, tenant_id, dataset_id)
    if row is None:
        raise NotFound("dataset", dataset_id)
    return view(row)


def list_page(
    session: Session, tenant_id: str, *, after: str | None = None, limit: int = 20
) -> Page[DatasetView]:
    """Return a page of a tenant's data sets, newest first."""
    page = page_of(
        session,
        select(Dataset).where(Dataset.purging_at.is_(None)),
        Dataset,
        tenant_id=tenant_id,
        after=after,
        limit=limit,
    )
    return Page([view(row) for row in page.data], page.has_more)


def rewrap(session: Session, settings: Settings) -> int:
    """Seal every data key under the first master key, so that older ones can go; return how many
    keys there are.
    """
    sealer = Sealer.of(settings)
    rows = session.scalars(
        select(Dataset).where(Dataset.data_key.is_not(None)).with_for_update()
    ).all()
    for row in rows:
        row.data_key = sealer.rewrapped(row.data_key, row.id) if row.data_key else None
    return len(rows)


def has_skipped(row: Dataset) -> bool:
    """True if members of a data set cannot be used, and are left out wherever it is read."""
    return bool((row.understood or {}).get("skipped"))


def view(row: Dataset) -> DatasetView:
    """Return a row as clients see it."""
    return DatasetView.model_validate(
        {
            "id": row.id,
            "name": row.name,
            "format": row.format,
            "digest": row.digest,
            "size_bytes": row.size_bytes,
            "images": row.images,
            "classes": row.classes,
            **(row.understood or {}),
            "purge_after_job": row.purge_after_job,
            "created_at": row.created_at,
        }
    )


def _of(tenant_id: str, dataset_id: str) -> Select[Dataset]:
    own = (Dataset.id == dataset_id, Dataset.tenant_id == tenant_id)
    return select(Dataset).where(*own, Dataset.purging_at.is_(None))
