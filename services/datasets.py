"""Data sets: checked before they are accepted, then kept as they came."""

from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from services.pages import Page, page_of
from shared.archives import ArchiveLimits, ArchiveSummary, inspect_archive
from shared.errors import InvalidRequest, NotFound
from shared.ids import new_id
from shared.schemas.dataset import DatasetView
from shared.settings import Settings
from shared.storage import Storage
from shared.tables import Dataset


def inspect(path: Path, settings: Settings) -> ArchiveSummary:
    """Return what an archive holds; slow for a large one, so do it outside of a transaction.

    Raises:
        InvalidRequest: it breaks a rule; the detail names the member.
    """
    try:
        return inspect_archive(path, ArchiveLimits.of(settings))
    except InvalidRequest as error:
        raise error.under("/file") from error


def store(storage: Storage, tenant_id: str, path: Path) -> tuple[str, str]:
    """Copy an inspected archive into the storage and return (data set id, key). The row comes after the bytes."""
    dataset_id = new_id("ds")
    key = f"tenants/{tenant_id}/datasets/{dataset_id}"
    storage.put(key, path)
    return dataset_id, key


def add(
    session: Session, *, tenant_id: str, dataset_id: str, name: str, key: str, size_bytes: int, summary: ArchiveSummary
) -> DatasetView:
    """Write the row of a stored archive."""
    row = Dataset(
        id=dataset_id,
        tenant_id=tenant_id,
        name=name,
        format=summary.format,
        key=key,
        digest=summary.sha256,
        size_bytes=size_bytes,
        images=summary.images,
        classes=summary.classes,
    )
    session.add(row)
    session.flush()
    session.refresh(row)
    return view(row)


def find(session: Session, tenant_id: str, dataset_id: str) -> Dataset | None:
    """Return a tenant's data set, or None."""
    return session.scalar(select(Dataset).where(Dataset.id == dataset_id, Dataset.tenant_id == tenant_id))


def get(session: Session, tenant_id: str, dataset_id: str) -> DatasetView:
    """Return one data set.

    Raises:
        NotFound: the tenant has none of this id.
    """
    row = find(session, tenant_id, dataset_id)
    if row is None:
        raise NotFound("dataset", dataset_id)
    return view(row)


def list_page(session: Session, tenant_id: str, *, after: str | None = None, limit: int = 20) -> Page[DatasetView]:
    """Return a page of a tenant's data sets, newest first."""
    page = page_of(session, select(Dataset), Dataset, tenant_id=tenant_id, after=after, limit=limit)
    return Page([view(row) for row in page.data], page.has_more)


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
            "created_at": row.created_at,
        }
    )
