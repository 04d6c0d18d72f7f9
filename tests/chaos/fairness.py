"""Whether tenants took turns, told from what was committed when.

The promise: while a tenant has a job waiting and none running, no more than `workers + 2` jobs of others are started. Each
worker may have looked a moment before the job came; one tenant may be the one whose turn it is; and a commit has its time a
moment before others can see it.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import psycopg
from sqlalchemy import text
from sqlalchemy.orm import Session

from shared.states import JobState

SLACK = 2
FINAL = frozenset(f"job.{state}" for state in JobState if state.final)
WAITS = frozenset({"job.queued", "job.requeued", "job.released"})
STARTED, HELD = "job.started", "job.held"
COMMITTED = text(
    """
    SELECT pg_xact_commit_timestamp(xmin) AS at, tenant_id, job_id, type FROM job_events
    WHERE type = ANY (:types) ORDER BY pg_xact_commit_timestamp(xmin), job_id, seq
    """
)


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that changed whether a job waits or runs."""

    at: datetime | float
    """When it was committed."""
    tenant: str
    job: str
    type: str


@dataclass(frozen=True, slots=True)
class Turns:
    """What became of the tenants that waited."""

    passed_over: tuple[int, ...]
    """For each time that a tenant had jobs waiting and none running: how many jobs of others were started meanwhile."""

    @property
    def most(self) -> int:
        """The worst of them."""
        return max(self.passed_over, default=0)

    def violations(self, workers: int) -> int:
        """Return how often it were more than `workers` explain."""
        return sum(count > workers + SLACK for count in self.passed_over)


def note_commits(postgres_url: str) -> None:
    """Have Postgres keep the time of every commit, from its next start on."""
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET track_commit_timestamp = on")


def committed(session: Session) -> Sequence[Happening]:
    """Return what happened, in the order of the commits. Events are never changed: `xmin` is who wrote them."""
    types = [*FINAL, *WAITS, STARTED, HELD]
    return [Happening(*row) for row in session.execute(COMMITTED, {"types": types})]


def turns(happenings: Iterable[Happening]) -> Turns:
    """Go through what happened and count how often whom others went before."""
    waiting: defaultdict[str, set[str]] = defaultdict(set)
    running: defaultdict[str, set[str]] = defaultdict(set)
    before: dict[str, int] = {}
    done: list[int] = []
    for happening in happenings:
        if happening.type == STARTED:
            for tenant in before.keys() - {happening.tenant}:
                before[tenant] += 1
        own, runs = waiting[happening.tenant], running[happening.tenant]
        (own.add if happening.type in WAITS else own.discard)(happening.job)
        (runs.add if happening.type == STARTED else runs.discard)(happening.job)
        if own and not runs:
            before.setdefault(happening.tenant, 0)
        elif happening.tenant in before:
            done.append(before.pop(happening.tenant))
    return Turns((*done, *before.values()))
