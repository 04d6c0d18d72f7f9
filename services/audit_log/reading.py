"""The audit log as a tenant reads it: its own entries, a page at a time or all of them, each with
its place in the chain.

The chain runs through the entries of all tenants. What a tenant gets of it is, for each entry,
the hash before and the hash after: whoever computes one from the other has shown that the entry
is what was linked."""

from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session, aliased

from services.audit_log.chain import GENESIS
from services.pages import Page
from shared.postgres.tables import AuditEntry, AuditLink


class Read(NamedTuple):
    """An entry, and its place in the chain; without one it was written a moment ago."""

    id: int
    at: datetime
    tenant: str | None
    actor: str
    action: str
    subject: str
    detail: dict[str, Any]
    seq: int | None
    previous: str | None
    hash: str | None

    def document(self) -> dict[str, Any]:
        """Return the entry as it is hashed (`audit_chain`), with what its hash is checked with."""
        entry = {
            "id": self.id,
            "at": self.at.astimezone(UTC).isoformat(timespec="microseconds"),
            "tenant": self.tenant,
            "actor": self.actor,
            "action": self.action,
            "subject": self.subject,
            "detail": self.detail,
        }
        return {"seq": self.seq, "previous": self.previous, "hash": self.hash, "entry": entry}


def list_page(
    session: Session,
    tenant_id: str,
    *,
    subject: str | None = None,
    before: int | None = None,
    limit: int = 50,
) -> Page[Read]:
    """Return a page of a tenant's entries, newest first: those before an id, and of one subject
    where it is given.
    """
    link, earlier = aliased(AuditLink), aliased(AuditLink)
    query = (
        select(AuditEntry, link.seq, link.hash, earlier.hash)
        .outerjoin(link, link.entry_id == AuditEntry.id)
        .outerjoin(earlier, earlier.seq == link.seq - 1)
        .where(AuditEntry.tenant_id == tenant_id)
    )
    if subject is not None:
        query = query.where(AuditEntry.subject == subject)
    if before is not None:
        query = query.where(AuditEntry.id < before)
    rows = session.execute(query.order_by(AuditEntry.id.desc()).limit(limit + 1)).all()
    return Page([_read(*row) for row in rows[:limit]], len(rows) > limit)


def _read(entry: AuditEntry, seq: int | None, digest: str | None, previous: str | None) -> Read:
    if seq == 1:
        previous = GENESIS
    return Read(
        id=entry.id,
        at=entry.created_at,
        tenant=entry.tenant_id,
        actor=entry.actor,
        action=entry.action,
        subject=entry.subject,
        detail=entry.detail,
        seq=seq,
        previous=previous if seq is not None else None,
        hash=digest,
    )
