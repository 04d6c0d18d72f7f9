"""The lines of a tenant's models: which was made from which, by which job, and who has fetched
its weights.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from services.catalog import models
from shared.postgres.tables import Job, Model, WeightFetch
from shared.schemas.model import ModelView

MOST = 1000
"""Models of one tree: as many as a tenant may upload by default."""


@dataclass(frozen=True, slots=True)
class Node:
    """A model, and those that were made from it."""

    model: ModelView
    deleted: bool
    fetched: int
    """How many keys have fetched its weights."""
    children: tuple["Node", ...]

    @property
    def superseded(self) -> bool:
        """True where a newer model of the line is there to take its place."""
        return any(not child.deleted or child.superseded for child in self.children)


def trees(session: Session, tenant_id: str) -> list[Node]:
    """Return the newest models of a tenant as trees, the newest tree first; deleted ones only
    where others come from them.
    """
    query = (
        select(Model)
        .where(Model.tenant_id == tenant_id)
        .order_by(Model.created_at.desc(), Model.id.desc())
    )
    rows = session.scalars(query.limit(MOST)).all()
    fetched = _fetched(session, tenant_id)
    known = {row.id for row in rows}
    below: Mapping[str | None, list[Model]] = defaultdict(list)
    for row in rows:
        below[row.parent_id if row.parent_id in known else None].append(row)
    return [node for row in below[None] if (node := _node(row, below, fetched)) is not None]


def users_of(session: Session, tenant_id: str, model_id: str, limit: int = 20) -> Sequence[str]:
    """Return unfinished jobs that use a model: while there are any it cannot be deleted."""
    uses = or_(Job.model_id == model_id, Job.spec["reference"]["id"].astext == model_id)
    query = select(Job.id).where(Job.tenant_id == tenant_id, Job.finished_at.is_(None), uses)
    return session.scalars(query.order_by(Job.id).limit(limit)).all()


def children_of(session: Session, tenant_id: str, model_id: str) -> list[ModelView]:
    """Return the models that were made from one, and are not deleted."""
    own = (Model.tenant_id == tenant_id, Model.parent_id == model_id, Model.deleted_at.is_(None))
    return [
        models.view(row)
        for row in session.scalars(select(Model).where(*own).order_by(Model.created_at))
    ]


def _node(
    row: Model, below: Mapping[str | None, list[Model]], fetched: Mapping[str, int]
) -> Node | None:
    made = (_node(child, below, fetched) for child in below.get(row.id, ()))
    children = tuple(node for node in made if node is not None)
    deleted = row.deleted_at is not None
    if deleted and not children:
        return None
    return Node(models.view(row), deleted, fetched.get(row.id, 0), children)


def _fetched(session: Session, tenant_id: str) -> dict[str, int]:
    counted = select(WeightFetch.model_id, func.count()).where(WeightFetch.tenant_id == tenant_id)
    return {row[0]: row[1] for row in session.execute(counted.group_by(WeightFetch.model_id))}
