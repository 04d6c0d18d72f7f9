"""Lists a page at a time: newest first, or by another time."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from sqlalchemy import Select, select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session

from shared.errors import InvalidRequest
from shared.postgres.tables import ApiKey, Dataset, Job, Model, Webhook, WebhookDelivery

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some items, and whether more follow."""

    data: Sequence[T]
    has_more: bool


@dataclass(frozen=True, slots=True)
class Order:
    """What a list is sorted by; rows of one time are told apart by their ids."""

    column: InstrumentedAttribute[datetime]
    descending: bool = True


def page_of(
    session: Session,
    query: Select[Any],
    table: type[Model]
    | type[Dataset]
    | type[Job]
    | type[ApiKey]
    | type[Webhook]
    | type[WebhookDelivery],
    *,
    tenant_id: str,
    after: str | None,
    limit: int,
    order: Order | None = None,
) -> Page[Any]:
    """Return up to `limit` rows of a tenant that come after the row with id `after` (newest first,
    unless `order` says else).

    Raises:
        InvalidRequest: `after` is no row of this list.
    """
    query = query.where(table.tenant_id == tenant_id)
    by = order or Order(table.created_at)
    if after is not None:
        mark = session.execute(
            select(by.column, table.id).where(table.id == after, table.tenant_id == tenant_id)
        ).one_or_none()
        if mark is None:
            raise InvalidRequest.at(
                "/after",
                f"{after!r} is no item of this list; take the id of the last item that you have",
            )
        here, last = tuple_(by.column, table.id), tuple_(*mark)
        query = query.where(here < last if by.descending else here > last)
    columns = (by.column, table.id)
    sorted_by = [column.desc() if by.descending else column.asc() for column in columns]
    rows = session.scalars(query.order_by(*sorted_by).limit(limit + 1)).all()
    return Page(rows[:limit], len(rows) > limit)
