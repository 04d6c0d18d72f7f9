"""Lists a page at a time, newest first."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import Select, select, tuple_
from sqlalchemy.orm import Session

from shared.errors import InvalidRequest
from shared.tables import ApiKey, Dataset, Job, Model, Webhook, WebhookDelivery

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some items, and whether more follow."""

    data: Sequence[T]
    has_more: bool


def page_of(
    session: Session,
    query: Select[Any],
    table: type[Model] | type[Dataset] | type[Job] | type[ApiKey] | type[Webhook] | type[WebhookDelivery],
    *,
    tenant_id: str,
    after: str | None,
    limit: int,
) -> Page[Any]:
    """Return up to `limit` rows of a tenant that come after the row with id `after` (newest first).

    Raises:
        InvalidRequest: `after` is no row of this list.
    """
    query = query.where(table.tenant_id == tenant_id)
    if after is not None:
        mark = session.execute(
            select(table.created_at, table.id).where(table.id == after, table.tenant_id == tenant_id)
        ).one_or_none()
        if mark is None:
            raise InvalidRequest.at(
                "/after", f"{after!r} is no item of this list; take the id of the last item that you have"
            )
        query = query.where(tuple_(table.created_at, table.id) < tuple_(*mark))
    rows = session.scalars(query.order_by(table.created_at.desc(), table.id.desc()).limit(limit + 1)).all()
    return Page(rows[:limit], len(rows) > limit)
