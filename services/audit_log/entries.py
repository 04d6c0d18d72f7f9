"""The audit log: what happened to what, by whose key, written in the transaction in which it
happened.

Entries are inserted here and linked into the hash chain a moment later (`audit_chain`), so that
no two writers wait for each other. The database refuses to change or delete either. No entry
holds data of those who asked to be forgotten: ids, codes and counts alone, and of whoever acts
at the console the name under which they signed in."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import bindparam, insert, select
from sqlalchemy.orm import Session

from shared.postgres.tables import AuditEntry, AuditUnlinked, Job

ACTOR = "actor"
"""In `Session.info`: the id of the key on whose behalf a transaction acts."""
PERSON = "person"
"""In `Session.info`: who uses that key at the console, by their own word. It stands in the
entry's detail.
"""
OPERATOR = "operator"
"""Who acts through the command line, on the machine itself."""
SERVICE = "service"
"""Who acts where nobody asked: relay and workers."""

NOT_AUDITED = frozenset({"job.stage", "job.progress"})
"""Events of a job that only say how far it is."""
RENAMED = {"job.queued": "job.submitted"}
KEPT_DETAIL = frozenset({"attempt", "code", "ground", "result_model", "superseded_by", "until"})
"""What of an event's data goes into the log. Messages and references of clients may name people,
so they do not.
"""

_ENTRY = (
    insert(AuditEntry)
    .values(
        {name: bindparam(name) for name in ("tenant_id", "actor", "action", "subject", "detail")}
    )
    .returning(AuditEntry.id)
    .cte("entry")
)
_WRITE = insert(AuditUnlinked).from_select(["entry_id"], select(_ENTRY.c.id))
"""The entry and its place in the queue in one round trip."""
WRITTEN = _WRITE.cte("written")
"""The same, to go along with another statement that gets the values of `entry`."""


def write(
    session: Session,
    action: str,
    subject: str,
    *,
    tenant_id: str | None,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Append an entry.

    Args:
        session: its transaction does what the entry says; `session.info["actor"]` says for whom.
        action: such as `weights.fetched`.
        subject: the id of what it happened to.
        tenant_id: whose it is; None for what belongs to the deployment.
        detail: strings and whole numbers; no personal data.
    """
    session.flush()
    values = _values(session, action, subject, tenant_id, detail or {})
    session.connection().execute(_WRITE, values)


def entry(
    session: Session, job: Job, kind: str, data: Mapping[str, object]
) -> dict[str, object] | None:
    """Return the values of `WRITTEN` for an event of a job, None for one that only says how far
    the job is.
    """
    if kind in NOT_AUDITED:
        return None
    detail = {name: str(data[name]) for name in sorted(KEPT_DETAIL & data.keys())}
    return _values(session, RENAMED.get(kind, kind), job.id, job.tenant_id, detail)


def _values(
    session: Session, action: str, subject: str, tenant_id: str | None, detail: Mapping[str, Any]
) -> dict[str, object]:
    person = {PERSON: session.info[PERSON]} if PERSON in session.info else {}
    return {
        "tenant_id": tenant_id,
        "actor": session.info.get(ACTOR, SERVICE),
        "action": action,
        "subject": subject,
        "detail": {**detail, **person},
    }
