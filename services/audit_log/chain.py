"""The hash chain of the audit log: `hash_n = SHA-256(JCS {seq: n, previous: hash_(n-1), entry})`.

JCS is canonical JSON (RFC 8785); hashes are written in hexadecimal, and `previous` of the first
entry is 64 zeros. One relay at a time extends the chain, in the order in which entries became
visible; writers never wait for it. Whoever edits, removes, inserts or reorders entries breaks a
hash; whoever cuts the end off is caught by a signed head (`audit_heads`)."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Any

import rfc8785
from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from shared.postgres.tables import (
    ApiKey,
    AuditEntry,
    AuditLink,
    AuditUnlinked,
    Dataset,
    DatasetPurge,
    Job,
)

GENESIS = "0" * 64
CHAIN_LOCK = 0x65666163
"""Advisory lock of whoever extends the chain."""
BATCH = 1000
EXAMPLES = 20
"""How many findings are told: a chain that is broken once may be wrong from there on."""


@dataclass(frozen=True, slots=True)
class Position:
    """An entry's place in the chain. Position 0 is the empty chain."""

    seq: int
    hash: str


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found when the whole log was read."""

    last: Position
    waiting: int
    """Entries that are not in the chain yet: those of the last second, while a relay runs."""
    findings: tuple[str, ...]
    """What is wrong, in words; empty where nothing is."""
    unused_ids: int = 0
    """Numbers below the newest entry's that no entry has. A transaction that is rolled back
    leaves such a gap, and so does an entry that is deleted before it is linked, so a gap proves
    nothing by itself."""


def extend(session: Session, limit: int = BATCH) -> int:
    """Link waiting entries into the chain; return how many, 0 where another one does so at this
    moment.
    """
    if not session.scalar(select(func.pg_try_advisory_xact_lock(CHAIN_LOCK))):
        return 0
    at = last(session)
    waiting = select(AuditEntry).join(AuditUnlinked, AuditUnlinked.entry_id == AuditEntry.id)
    entries = session.scalars(waiting.order_by(AuditEntry.id).limit(limit)).all()
    for entry in entries:
        at = _next(at, entry)
        session.add(AuditLink(seq=at.seq, entry_id=entry.id, hash=at.hash))
    session.flush()
    session.execute(
        delete(AuditUnlinked).where(AuditUnlinked.entry_id.in_([entry.id for entry in entries]))
    )
    return len(entries)


def last(session: Session) -> Position:
    """Return the end of the chain."""
    row = session.execute(
        select(AuditLink.seq, AuditLink.hash).order_by(AuditLink.seq.desc()).limit(1)
    ).one_or_none()
    return Position(*row) if row else Position(0, GENESIS)


def hash_at(session: Session, seq: int) -> str | None:
    """Return the hash at a place in the chain, None past its end."""
    return (
        GENESIS if seq == 0 else session.scalar(select(AuditLink.hash).where(AuditLink.seq == seq))
    )


def verify(session: Session) -> Verification:
    """Read the whole log and compute every hash again."""
    at, findings = Position(0, GENESIS), []
    for link, entry in _linked(session):
        expected = _next(at, entry) if entry is not None else None
        if link.seq != at.seq + 1:
            findings.append(f"seq {at.seq + 1} to {link.seq - 1}: missing from the chain")
        elif expected is None:
            findings.append(f"seq {link.seq}: its entry {link.entry_id} was deleted")
        elif expected.hash != link.hash:
            findings.append(
                f"seq {link.seq}: entry {link.entry_id} or its place was changed after it was "
                "linked"
            )
        at = Position(
            link.seq, link.hash
        )  # what follows is judged by itself, so that each break is told once
    findings += [
        f"entry {entry_id}: was taken out of the chain" for entry_id in _unchained(session)
    ]
    findings += _unrecorded(session)
    waiting = session.scalar(select(func.count()).select_from(AuditUnlinked)) or 0
    count, highest = session.execute(
        select(func.count(), func.coalesce(func.max(AuditEntry.id), 0))
    ).one()
    return Verification(at, waiting, tuple(findings[:EXAMPLES]), highest - count)


def _next(at: Position, entry: AuditEntry) -> Position:
    document: dict[str, Any] = {
        "id": entry.id,
        "at": entry.created_at.astimezone(UTC).isoformat(timespec="microseconds"),
        "tenant": entry.tenant_id,
        "actor": entry.actor,
        "action": entry.action,
        "subject": entry.subject,
        "detail": entry.detail,
    }
    linked = rfc8785.dumps({"seq": at.seq + 1, "previous": at.hash, "entry": document})
    return Position(at.seq + 1, hashlib.sha256(linked).hexdigest())


def _linked(session: Session) -> Iterator[tuple[AuditLink, AuditEntry | None]]:
    query = select(AuditLink, AuditEntry).outerjoin(AuditEntry, AuditEntry.id == AuditLink.entry_id)
    yield from session.execute(query.order_by(AuditLink.seq).execution_options(yield_per=BATCH))


def _unchained(session: Session) -> Sequence[int]:
    """Return entries that are neither in the chain nor waiting for their place in it."""
    linked = select(AuditLink.seq).where(AuditLink.entry_id == AuditEntry.id).exists()
    waiting = select(AuditUnlinked.entry_id).where(AuditUnlinked.entry_id == AuditEntry.id).exists()
    return session.scalars(
        select(AuditEntry.id).where(~linked, ~waiting).order_by(AuditEntry.id).limit(EXAMPLES)
    ).all()


RECORDED: tuple[tuple[str, str, Any], ...] = (
    ("job", "job.submitted", Job.id),
    ("key", "key.created", ApiKey.id),
    ("data set", "dataset.uploaded", Dataset.id),
    ("purge of data set", "dataset.purged", DatasetPurge.dataset_id),
)
"""What there is a row of has an entry: what it is, the entry's action, and the row's id."""


def _unrecorded(session: Session) -> Iterator[str]:
    """Yield the rows without the entry of their making: it was deleted before it was linked, or
    the log was emptied.
    """
    for what, action, row_id in RECORDED:
        entry = (
            select(AuditEntry.id)
            .where(AuditEntry.subject == row_id, AuditEntry.action == action)
            .exists()
        )
        for found in session.scalars(select(row_id).where(~entry).order_by(row_id).limit(EXAMPLES)):
            yield f"{what} {found}: the log has no entry {action!r} of it"
