"""Tenants take turns: nobody waits behind all that another one has sent, and finding whose turn it is stays cheap."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, text, update

from services.access import api_keys
from services.jobs import lifecycle, submission, turns
from shared.postgres.database import Database
from shared.postgres.tables import Job
from shared.settings import Settings
from shared.states import JobState
from tests.support import requests

Submit = Callable[..., str]


@pytest.fixture
def submit_as(database: Database, settings: Settings, clip: Path) -> Submit:
    """Submits a job of the tenant of this name and returns its id."""

    def submit(tenant: str, **changes: object) -> str:
        with database.transaction() as session:
            tenant_id = api_keys.tenant_named(session, tenant).id
            return submission.submit(session, tenant_id, requests.names_only(clip, **changes), settings).id

    return submit


def take(database: Database, weights: dict[str, float] | None = None) -> str | None:
    """Claim whatever comes next."""
    with database.transaction() as session:
        claim = lifecycle.claim_next(session, "w", 60, weights)
    return claim and claim.spec.job_id


def end(database: Database, job_id: str) -> None:
    with database.transaction() as session:
        session.execute(
            update(Job).where(Job.id == job_id).values(state=JobState.CANCELLED, finished_at=func.clock_timestamp())
        )


def test_one_job_waits_for_two_others_of_a_hundred_at_most(database: Database, submit_as: Submit) -> None:
    for _ in range(100):
        submit_as("alpha", received_at="2000-01-01T00:00:00Z")
    running = take(database)
    late = submit_as("beta")
    taken: list[str | None] = []
    while late not in taken:
        assert running is not None
        end(database, running)
        running = take(database)
        taken.append(running)
    assert len(taken) <= 2


def test_with_several_workers_the_tenant_with_fewest_running_is_next(database: Database, submit_as: Submit) -> None:
    many = {submit_as("alpha") for _ in range(6)}
    few = {submit_as("beta") for _ in range(3)}
    taken = [take(database) for _ in range(6)]
    assert len(many.intersection(taken)) == len(few.intersection(taken)) == 3
    assert {take(database) for _ in range(3)} <= many


def test_a_weight_is_a_share(database: Database, submit_as: Submit) -> None:
    of_alpha = {submit_as("alpha") for _ in range(9)}
    for _ in range(9):
        submit_as("beta")
    taken = [take(database, {"alpha": 2.0}) for _ in range(9)]
    assert len(of_alpha.intersection(taken)) == 6


def test_a_held_job_and_its_tenant_hold_up_nobody(database: Database, submit_as: Submit) -> None:
    held, other = submit_as("alpha"), submit_as("beta")
    with database.transaction() as session:
        session.execute(update(Job).where(Job.id == held).values(held_at=func.now()))
    assert [take(database), take(database)] == [other, None]


def test_many_workers_at_once_take_every_job_once(database: Database, submit_as: Submit) -> None:
    waiting = {submit_as(tenant) for tenant in ("alpha", "beta", "gamma") for _ in range(4)}
    with ThreadPoolExecutor(5) as pool:
        taken = list(pool.map(lambda _: take(database), range(len(waiting))))
    assert set(taken) == waiting


def test_finding_whose_turn_it_is_reads_neither_history_nor_the_whole_line(
    database: Database, submit_as: Submit
) -> None:
    """5,000 jobs that wait and as many that have ended: rows are counted that were read, not seconds."""
    first = submit_as("alpha")
    submit_as("beta")
    with database.transaction() as session:
        columns = [
            column.name for column in Job.__table__.columns if column.name not in ("id", "state", "business_key")
        ]
        listed = ", ".join(columns)
        for state, mark in (("queued", "q"), ("succeeded", "s")):
            session.execute(
                text(
                    f"INSERT INTO jobs (id, state, {listed}) SELECT '{mark}' || n, '{state}', {listed}"
                    " FROM jobs, generate_series(1, 5000) n WHERE id = :id"
                ),
                {"id": first},
            )
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE jobs"))
    with database.transaction() as session:
        plan = session.execute(
            text(f"EXPLAIN (ANALYZE, FORMAT JSON) {turns.FIRST_IN_LINE.text}"), {"weights": "{}"}
        ).scalar_one()
    assert rows_read(plan[0]["Plan"]) < 100
    assert take(database) is not None


def rows_read(node: dict[str, Any]) -> float:
    """Return how many rows of jobs a plan has read, those among them that a filter dropped."""
    read = 0.0
    if node.get("Relation Name") == "jobs":
        read = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
    return read + sum(rows_read(below) for below in node.get("Plans", ()))
