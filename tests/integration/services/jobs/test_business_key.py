"""Two tools that ask for the same erasure get the same job."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError

from services.catalog import models
from services.jobs import ending, lifecycle, submission
from shared.postgres.database import Database
from shared.postgres.tables import Job
from shared.schemas.job import JobError, JobView
from shared.schemas.request import ErasureRequest
from shared.settings import Settings
from tests.support import requests

THREADS = 8
TARGET = {"type": "class", "class": "horse", "labels": ["horse", "dog", "cat"]}

Ask = Callable[..., JobView]


@pytest.fixture
def ask(database: Database, tenant: str, settings: Settings, clip: Path) -> Ask:
    """Asks for an erasure under DSR-1, in a transaction of its own."""

    def submit(*, of: str = tenant, request: ErasureRequest | None = None, **changes: Any) -> JobView:
        body = request or requests.names_only(clip, **{"external_id": "DSR-1"} | changes)
        with database.transaction() as session:
            return submission.submit(session, of, body, settings)

    return submit


def test_the_second_tool_gets_the_first_ones_job(ask: Ask) -> None:
    first, second = ask(), ask()
    assert (first.existing, second.existing) == (False, True)
    assert second == first.model_copy(update={"existing": True})


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"thresholds": {"max_synthetic_accuracy": 0.2}},
        {"method": {"name": "synthetic", "parameters": {"mode": "faithful"}}},
        {"metadata": {"tool": "another"}},
        {"received_at": "2026-11-02T09:00:00Z"},
        {"target": TARGET | {"labels": ["cat", "horse"]}},
        {"target": TARGET | {"class": ["horse"]}},
    ],
    ids=str,
)
def test_how_it_is_done_and_measured_does_not_make_another_erasure(ask: Ask, changes: dict[str, Any]) -> None:
    assert ask(**changes).id == ask().id


@pytest.mark.parametrize(
    "changes",
    [
        {"external_id": "DSR-2"},
        {"external_id": None},
        {"target": TARGET | {"class": "dog"}},
        {"target": TARGET | {"class": ["horse", "dog"]}},
        {"target": TARGET | {"synonyms": ["pony"]}},
    ],
    ids=str,
)
def test_another_name_or_target_is_another_erasure(ask: Ask, changes: dict[str, Any]) -> None:
    first, other = ask(), ask(**changes)
    assert not other.existing
    assert other.id != first.id


def test_without_an_external_id_every_request_is_a_job(ask: Ask) -> None:
    assert not ask(external_id=None).existing
    assert not ask(external_id=None).existing


def test_another_tenants_erasure_is_another(ask: Ask, stranger: str) -> None:
    ask()
    assert not ask(of=stranger).existing


def test_another_method_is_another_erasure(ask: Ask, upload: Callable[..., str]) -> None:
    data = {"forget": upload("horse"), "retain": upload("dog")}
    ask(data=data)
    assert not ask(method={"name": "three_stage"}, data=data).existing


def test_a_model_is_its_weights_whoever_registered_them(ask: Ask, database: Database, tenant: str, clip: Path) -> None:
    def uploaded(model_id: str, digest: str) -> dict[str, str]:
        with database.transaction() as session:
            values: dict[str, object] = {"id": model_id, "reference": f"storage:{model_id}", "digest": digest}
            return {"id": models.add(session, tenant_id=tenant, name=model_id, values=values).id}

    first = ask(model=uploaded("mdl_1", "aa"))
    assert ask(model=uploaded("mdl_2", "aa")).id == first.id
    assert not ask(model=uploaded("mdl_3", "bb")).existing
    assert not ask(model={"source": f"local-dir:{clip}"}).existing


def test_a_subgroup_is_the_images_that_show_it(ask: Ask, upload: Callable[..., str], clip: Path) -> None:
    retain = upload("horse", "dog")

    def of(*shown: str, subgroup: str = "sketch") -> JobView:
        target = {"type": "subgroup", "class": "horse", "subgroup": subgroup, "labels": ["horse", "dog"]}
        request = requests.subgroup(clip, forget=upload(*shown), retain=retain, target=target, external_id="DSR-1")
        return ask(request=request)

    assert of("horse").id == of("horse").id
    assert not of("sketches").existing
    assert not of("horse", subgroup="drawing").existing


@pytest.mark.parametrize("end", ["cancelled", "cancel_requested", "failed"])
def test_what_failed_or_was_cancelled_may_be_asked_for_anew(
    ask: Ask, database: Database, tenant: str, end: str
) -> None:
    first = ask()
    with database.transaction() as session:
        if end == "cancelled":
            ending.cancel(session, tenant, first.id)
        elif end == "cancel_requested":
            lifecycle.claim(session, first.id, "w", 60)
            ending.cancel(session, tenant, first.id)
        else:
            lifecycle.claim(session, first.id, "w", 60)
            lifecycle.fail(session, first.id, 1, JobError(code="method_failed", message="no way"))
    again = ask()
    assert (again.existing, again.id == first.id) == (False, False)
    assert ask().id == again.id


@pytest.mark.parametrize("state", ["running", "succeeded"])
def test_what_runs_or_succeeded_stands(ask: Ask, database: Database, state: str) -> None:
    first = ask()
    with database.transaction() as session:
        session.execute(update(Job).values(state=state))
    assert ask().id == first.id


def test_validate_only_tells_of_the_job_that_is_there(
    ask: Ask, database: Database, tenant: str, settings: Settings, clip: Path
) -> None:
    first = ask()
    with database.transaction() as session:
        request = requests.names_only(clip, external_id="DSR-1")
        view = submission.validated(session, tenant, request, settings)
    assert isinstance(view, JobView)
    assert (view.id, view.existing) == (first.id, True)


def test_many_tools_at_once_get_one_job(ask: Ask, database: Database) -> None:
    together = threading.Barrier(THREADS)

    def post(number: int) -> JobView:
        together.wait(30)
        return ask(seed=number)

    with ThreadPoolExecutor(THREADS) as pool:
        views = list(pool.map(post, range(THREADS)))
    assert len({view.id for view in views}) == 1
    assert sorted(view.existing for view in views) == [False] + [True] * (THREADS - 1)
    with database.transaction() as session:
        assert session.scalar(select(func.count()).select_from(Job)) == 1


def test_the_database_itself_refuses_a_second_job(ask: Ask, database: Database) -> None:
    first, second = ask(), ask(external_id="DSR-2")
    with pytest.raises(IntegrityError, match="uq_jobs_business_key"), database.transaction() as session:
        session.get_one(Job, second.id).business_key = session.get_one(Job, first.id).business_key
