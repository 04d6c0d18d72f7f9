"""Which jobs are expected to end after they are due. Each is told of once: `job.deadline_at_risk`."""

import heapq
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import extract, func, select
from sqlalchemy.orm import Session

from services.jobs import record
from shared.states import JobState
from shared.tables import Job

RECENT = 20
"""So many jobs of a method tell how long the next one takes."""


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A job as the estimate sees it. `started_at` is None while it waits."""

    id: str
    method: str
    due_at: datetime
    started_at: datetime | None


def expected_ends(now: datetime, line: Sequence[Unfinished], seconds: Mapping[str, float]) -> dict[str, datetime]:
    """Return when each job is expected to end.

    Workers take the jobs of `line` in its order, each as soon as one is free. There are as many workers as jobs run, at
    least one: where a line has formed, every worker is busy. `seconds` is what a job of each method takes.
    """
    ends = {
        job.id: max(now, job.started_at + timedelta(seconds=seconds[job.method]))
        for job in line
        if job.started_at is not None
    }
    free = list(ends.values()) or [now]
    heapq.heapify(free)
    for job in line:
        if job.started_at is None:
            ends[job.id] = free[0] + timedelta(seconds=seconds[job.method])
            heapq.heapreplace(free, ends[job.id])
    return ends


def flag(session: Session, *, longest_seconds: float) -> int:
    """Record which jobs are newly at risk; return how many. A method that has no history takes `longest_seconds`."""
    now: datetime = session.execute(select(func.clock_timestamp())).scalar_one()
    unfinished = (Job.state.in_((JobState.QUEUED, JobState.RUNNING)), Job.held_at.is_(None))
    columns = (Job.id, Job.method, Job.due_at, Job.state, Job.started_at, Job.at_risk_at)
    rows = session.execute(select(*columns).where(*unfinished).order_by(Job.due_at, Job.id)).all()
    line = [
        Unfinished(row.id, row.method, row.due_at, row.started_at if row.state == JobState.RUNNING else None)
        for row in rows
    ]
    ends = expected_ends(now, line, _seconds(session, {row.method for row in rows}, longest_seconds))
    late = [row.id for row in rows if row.at_risk_at is None and ends[row.id] > row.due_at]
    query = select(Job).where(Job.id.in_(late), *unfinished, Job.at_risk_at.is_(None))
    jobs = session.scalars(query.with_for_update(skip_locked=True)).all()
    for job in jobs:
        job.at_risk_at = now
        job.version += 1
        data: dict[str, object] = {"due_at": job.due_at.isoformat(), "expected_at": ends[job.id].isoformat()}
        record(session, job, "job.deadline_at_risk", data)
    return len(jobs)


def _seconds(session: Session, methods: Iterable[str], longest_seconds: float) -> dict[str, float]:
    """Return the median duration of the jobs of each method that were measured last, in seconds."""
    taken = {}
    for method in methods:
        duration = extract("epoch", Job.finished_at - Job.started_at)
        recent = select(duration).where(Job.method == method, Job.verdict.is_not(None))
        durations = session.scalars(recent.order_by(Job.finished_at.desc()).limit(RECENT)).all()
        taken[method] = statistics.median(float(d) for d in durations) if durations else longest_seconds
    return taken
