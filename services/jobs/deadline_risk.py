"""Which jobs are expected to end after they are due. Each is told of once:
`job.deadline_at_risk`.
"""

import heapq
import statistics
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import extract, func, select
from sqlalchemy.orm import Session

from services.fleet import processes
from services.jobs.events import record
from shared.postgres.tables import TURN, Job, Tenant
from shared.states import JobState, ProcessKind

RECENT = 20
"""So many jobs of a method tell how long the next one takes."""


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A job as the estimate sees it. `started_at` is None while it waits."""

    id: str
    method: str
    due_at: datetime
    started_at: datetime | None
    tenant: str = ""


@dataclass(slots=True)
class _Tenant:
    """A tenant's part of the line."""

    waiting: deque[Unfinished]
    weight: float
    running: int = 0
    served: float = 0.0
    """When it was last served: only the order counts."""


def expected_ends(
    now: datetime,
    line: Sequence[Unfinished],
    seconds: Mapping[str, float],
    *,
    workers: int = 1,
    served: Mapping[str, float] | None = None,
    weights: Mapping[str, float] | None = None,
) -> dict[str, datetime]:
    """Return when each job is expected to end, if workers take turns as
    `services.jobs.queries.turns` has them do.

    Args:
        now: the time.
        line: the jobs; those of one tenant in the order in which they are due.
        seconds: what a job of each method takes.
        workers: how many there are; no fewer than jobs run.
        served: by tenant, when it was last served; only the order counts.
        weights: by tenant.
    """
    ends = {
        job.id: max(now, job.started_at + timedelta(seconds=seconds[job.method]))
        for job in line
        if job.started_at is not None
    }
    tenants: dict[str, _Tenant] = {}
    for job in line:
        weight, last = (weights or {}).get(job.tenant, 1.0), (served or {}).get(job.tenant, 0.0)
        tenant = tenants.setdefault(job.tenant, _Tenant(deque(), weight, served=last))
        if job.started_at is None:
            tenant.waiting.append(job)
        else:
            tenant.running += 1
    busy = [(ends[job.id], job.tenant) for job in line if job.started_at is not None]
    free = [(now, "") for _ in range(max(1, workers) - len(busy))]
    _take_turns(ends, tenants, busy + free, seconds)
    return ends


def _take_turns(
    ends: dict[str, datetime],
    tenants: dict[str, _Tenant],
    workers: list[tuple[datetime, str]],
    seconds: Mapping[str, float],
) -> None:
    """Let each worker, given as when it is free and whose job it has until then, take jobs until
    none waits.
    """
    heapq.heapify(workers)
    turn = max((tenant.served for tenant in tenants.values()), default=0.0)
    waiting = {name for name, tenant in tenants.items() if tenant.waiting}
    while waiting:
        at, last = heapq.heappop(workers)
        if last:
            tenants[last].running -= 1
        name = min(
            waiting, key=lambda n: (tenants[n].running / tenants[n].weight, tenants[n].served, n)
        )
        tenant, turn = tenants[name], turn + 1.0
        job = tenant.waiting.popleft()
        tenant.running, tenant.served = tenant.running + 1, turn
        ends[job.id] = at + timedelta(seconds=seconds[job.method])
        heapq.heappush(workers, (ends[job.id], name))
        if not tenant.waiting:
            waiting.remove(name)


def flag(
    session: Session, *, longest_seconds: float, weights: Mapping[str, float] | None = None
) -> int:
    """Record which jobs are newly at risk; return how many. A method that has no history takes
    `longest_seconds`.
    """
    now: datetime = session.execute(select(func.clock_timestamp())).scalar_one()
    unfinished = (Job.state.in_((JobState.QUEUED, JobState.RUNNING)), Job.held_at.is_(None))
    columns = (
        Job.id,
        Job.method,
        Job.due_at,
        Job.state,
        Job.started_at,
        Job.at_risk_at,
        Tenant.name,
        Tenant.served_at,
    )
    query = select(*columns).join(Tenant, Tenant.id == Job.tenant_id).where(*unfinished)
    rows = session.execute(query.order_by(TURN, Job.id)).all()
    line = [
        Unfinished(
            row.id,
            row.method,
            row.due_at,
            row.started_at if row.state == JobState.RUNNING else None,
            row.name,
        )
        for row in rows
    ]
    ends = expected_ends(
        now,
        line,
        _seconds(session, {row.method for row in rows}, longest_seconds),
        workers=sum(process.alive for process in processes.seen(session, ProcessKind.WORKER)),
        served={row.name: row.served_at.timestamp() for row in rows if row.served_at is not None},
        weights=weights,
    )
    late = [row.id for row in rows if row.at_risk_at is None and ends[row.id] > row.due_at]
    query_late = select(Job).where(Job.id.in_(late), *unfinished, Job.at_risk_at.is_(None))
    jobs = session.scalars(query_late.with_for_update(skip_locked=True)).all()
    for job in jobs:
        job.at_risk_at = now
        job.version += 1
        data: dict[str, object] = {
            "due_at": job.due_at.isoformat(),
            "expected_at": ends[job.id].isoformat(),
        }
        record(session, job, "job.deadline_at_risk", data)
    return len(jobs)


def _seconds(session: Session, methods: Iterable[str], longest_seconds: float) -> dict[str, float]:
    """Return the median duration of the jobs of each method that were measured last, in seconds."""
    taken = {}
    for method in methods:
        duration = extract("epoch", Job.finished_at - Job.started_at)
        recent = select(duration).where(Job.method == method, Job.verdict.is_not(None))
        durations = session.scalars(recent.order_by(Job.finished_at.desc()).limit(RECENT)).all()
        taken[method] = (
            statistics.median(float(d) for d in durations) if durations else longest_seconds
        )
    return taken
