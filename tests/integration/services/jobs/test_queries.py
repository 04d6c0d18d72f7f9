"""Jobs as their owner sees them."""

from collections.abc import Callable
from functools import partial

import pytest
from sqlalchemy.orm import Session

from services.jobs import ending, lifecycle, queries
from services.jobs.queries import JobFilter
from shared.errors import Conflict, InvalidRequest, NotFound
from shared.postgres.database import Database
from shared.schemas.job import JobError
from shared.states import JobState, Stage
from tests.support.world import World

EVERY = JobFilter()


def test_pages_hold_every_job_once_newest_first(
    database: Database, tenant: str, stranger: str, submit: Callable[..., str]
) -> None:
    submitted = [submit() for _ in range(5)]
    seen, after = [], None
    with database.transaction() as session:
        while True:
            page = queries.list_page(session, tenant, EVERY, after=after, limit=2)
            seen += [job.id for job in page.data]
            if not page.has_more:
                break
            after = seen[-1]
        assert seen == submitted[::-1]
        assert queries.list_page(session, stranger, EVERY).data == []
        with pytest.raises(InvalidRequest, match="/after"):
            queries.list_page(session, stranger, EVERY, after=seen[0])


def test_filters(database: Database, tenant: str, submit: Callable[..., str]) -> None:
    first, second = submit(external_id="A"), submit(external_id="B")
    with database.transaction() as session:
        ending.cancel(session, tenant, second)
    wanted = {
        first: [JobFilter(state=JobState.QUEUED), JobFilter(external_id="A")],
        second: [JobFilter(state=JobState.CANCELLED), JobFilter(external_id="B", method="synthetic")],
    }
    with database.transaction() as session:
        for job, filters in wanted.items():
            for one in filters:
                assert [found.id for found in queries.list_page(session, tenant, one).data] == [job]
        assert queries.list_page(session, tenant, JobFilter(model_id="mdl_other")).data == []


@pytest.mark.parametrize(
    "look",
    [queries.get, ending.cancel, queries.events, queries.metrics, queries.artifacts, queries.report],
    ids=lambda f: f.__name__,
)
def test_what_is_anothers_is_not_there(
    session: Session, stranger: str, submit: Callable[..., str], look: Callable[..., object]
) -> None:
    with pytest.raises(NotFound):
        look(session, stranger, submit())


def test_a_waiting_job_is_cancelled_at_once_and_only_once(
    database: Database, tenant: str, submit: Callable[..., str]
) -> None:
    job = submit()
    with database.transaction() as session:
        cancelled = ending.cancel(session, tenant, job)
        assert cancelled.state == JobState.CANCELLED
        assert cancelled.finished_at is not None
        assert ending.cancel(session, tenant, job) == cancelled
        types = [event.type for event in queries.events(session, tenant, job).data]
    assert types == ["job.queued", "job.cancelled"]


def test_a_finished_job_cannot_be_cancelled(database: Database, tenant: str, submit: Callable[..., str]) -> None:
    job = submit()
    with database.transaction() as session:
        assert lifecycle.claim(session, job, "w", 60)
        lifecycle.fail(session, job, 1, JobError(code="method_failed", message="No."))
        with pytest.raises(Conflict, match="failed already"):
            ending.cancel(session, tenant, job)


def test_events_go_on_after_the_last_one_seen(database: Database, tenant: str, submit: Callable[..., str]) -> None:
    job = submit()
    with database.transaction() as session:
        lifecycle.claim(session, job, "w", 60)
        for stage in Stage:
            lifecycle.enter_stage(session, job, 1, stage)
        first = queries.events(session, tenant, job, limit=4)
        rest = queries.events(session, tenant, job, after=first.data[-1].seq)
    assert (first.has_more, rest.has_more) == (True, False)
    assert [event.seq for event in [*first.data, *rest.data]] == list(range(1, 3 + len(Stage)))


def test_there_is_no_report_before_the_end(database: Database, tenant: str, submit: Callable[..., str]) -> None:
    job = submit()
    with database.transaction() as session:
        with pytest.raises(Conflict, match="before it ends"):
            queries.report(session, tenant, job)
        ending.cancel(session, tenant, job)
        with pytest.raises(Conflict, match="left no published file"):
            queries.weights(session, tenant, job, "open_clip_model.safetensors")


@pytest.mark.parametrize(
    ("missed", "words"), [(1, "1 of 3 thresholds was missed"), (2, "2 of 3 thresholds were missed")]
)
def test_weights_of_a_missed_threshold_are_refused_with_the_reason(
    database: Database, tenant: str, submit: Callable[..., str], missed: int, words: str
) -> None:
    bounds = [{"measure": "forget_recall", "max": 0.9, "min": 0.1}]
    job = submit(thresholds={"max_synthetic_accuracy": 0.05, "measures": bounds})
    error = JobError(code="thresholds_not_met", message="It misses.", detail={"missed": [{}] * missed})
    with database.transaction() as session:
        lifecycle.claim(session, job, "w", 60)
        lifecycle.fail(session, job, 1, error)
        with pytest.raises(Conflict) as caught:
            queries.weights(session, tenant, job, "open_clip_model.safetensors")
    assert caught.value.detail == f"No weights were published: {words}. See GET /jobs/{job}/report."


def test_the_version_grows_with_every_change(database: Database, tenant: str, submit: Callable[..., str]) -> None:
    world = World(database, tenant, submit())
    versions = [world.view().version]
    for change in (
        world.claim,
        partial(world.do, lifecycle.enter_stage, 1, Stage.PREPARING),
        partial(world.do, lifecycle.record_steps, 1, [], 0.5),
        world.cancel,
        partial(world.do, lifecycle.confirm_cancel, 1),
    ):
        change()
        versions.append(world.view().version)
    assert versions == sorted(set(versions))
