"""What tenants call their models and data sets, for lists that name many of them."""

from collections.abc import Collection

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.postgres.tables import Dataset, Model


def of_models(session: Session, tenant_id: str, ids: Collection[str]) -> dict[str, str]:
    """Return the names of those of these models that are the tenant's, deleted ones included."""
    return _names(session, Model, tenant_id, ids)


def newest_models(session: Session, tenant_id: str, limit: int = 100) -> dict[str, str]:
    """Return the names of a tenant's models by id, newest first: what a list offers to choose
    from.
    """
    query = select(Model.id, Model.name).where(
        Model.tenant_id == tenant_id, Model.deleted_at.is_(None)
    )
    rows = session.execute(query.order_by(Model.created_at.desc(), Model.id.desc()).limit(limit))
    return {row.id: row.name for row in rows}


def of_datasets(session: Session, tenant_id: str, ids: Collection[str]) -> dict[str, str]:
    """Return the names of those of these data sets that are the tenant's and not purged."""
    return _names(session, Dataset, tenant_id, ids)


def _names(
    session: Session, table: type[Model] | type[Dataset], tenant_id: str, ids: Collection[str]
) -> dict[str, str]:
    if not ids:
        return {}
    query = select(table.id, table.name).where(table.tenant_id == tenant_id, table.id.in_(ids))
    return {row.id: row.name for row in session.execute(query)}
