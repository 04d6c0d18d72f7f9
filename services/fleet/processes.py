"""Workers and relays that say every few seconds that they live, and which of them have fallen
silent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, extract, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared.postgres.tables import Job, ServiceProcess
from shared.schemas.worker import WorkerView
from shared.states import ProcessKind

BEAT_SECONDS = 5.0
"""Between two signs of life."""
SILENT_SECONDS = 30.0
"""Whoever was not heard of for so long does not count as alive."""
FORGET_SECONDS = 600.0
"""The row of a process that ended without a farewell is deleted after this."""


@dataclass(frozen=True, slots=True)
class Sign:
    """A sign of life."""

    id: str
    kind: ProcessKind
    host: str
    pid: int
    version: str
    job_id: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Seen:
    """A process as it was last heard of."""

    id: str
    kind: ProcessKind
    host: str
    job_id: str | None
    facts: Mapping[str, Any]
    silent_seconds: float

    @property
    def alive(self) -> bool:
        """True for one that was heard of lately."""
        return self.silent_seconds <= SILENT_SECONDS


def beat(session: Session, sign: Sign) -> None:
    """Write down that a process lives."""
    values = {
        "kind": sign.kind,
        "host": sign.host,
        "pid": sign.pid,
        "version": sign.version,
        "job_id": sign.job_id,
        "facts": dict(sign.facts),
    }
    statement = insert(ServiceProcess).values(id=sign.id, **values)
    now = {"seen_at": func.clock_timestamp()}
    session.execute(statement.on_conflict_do_update(index_elements=["id"], set_=values | now))


def leave(session: Session, process_id: str) -> None:
    """Take leave: the process ends in order."""
    session.execute(delete(ServiceProcess).where(ServiceProcess.id == process_id))


def forget(session: Session) -> None:
    """Delete the rows of processes that were not heard of for long."""
    before = func.clock_timestamp() - timedelta(seconds=FORGET_SECONDS)
    session.execute(delete(ServiceProcess).where(ServiceProcess.seen_at < before))


def seen(session: Session, kind: ProcessKind | None = None) -> list[Seen]:
    """Return every process that is known, the one first that was heard of last."""
    silent = extract("epoch", func.clock_timestamp() - ServiceProcess.seen_at)
    query = select(ServiceProcess, silent).order_by(ServiceProcess.seen_at.desc())
    if kind is not None:
        query = query.where(ServiceProcess.kind == kind)
    return [
        Seen(
            row.id, ProcessKind(row.kind), row.host, row.job_id, row.facts, max(0.0, float(seconds))
        )
        for row, seconds in session.execute(query)
    ]


def views(session: Session, tenant_id: str) -> Sequence[WorkerView]:
    """Return every process as an administrator of a tenant sees it: of a job, only whether there
    is one, unless it is theirs.
    """
    query = select(ServiceProcess, Job.tenant_id).outerjoin(Job, Job.id == ServiceProcess.job_id)
    now: datetime = session.execute(select(func.clock_timestamp())).scalar_one()
    found = []
    for row, owner in session.execute(
        query.order_by(ServiceProcess.kind, ServiceProcess.started_at)
    ):
        silent = (now - row.seen_at).total_seconds()
        found.append(
            WorkerView(
                id=row.id,
                kind=ProcessKind(row.kind),
                host=row.host,
                version=row.version,
                alive=silent <= SILENT_SECONDS,
                busy=row.job_id is not None,
                job=row.job_id if owner == tenant_id else None,
                facts={name: value for name, value in row.facts.items() if name != "parts"},
                started_at=row.started_at,
                seen_at=row.seen_at,
            )
        )
    return found
