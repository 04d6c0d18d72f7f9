"""What becomes of a job: a real relay, queue, worker and child, on a pipeline that does as the test says."""

import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
from sqlalchemy import select

from services.catalog import models
from services.jobs import queries
from shared.ports.object_storage import Storage
from shared.postgres.tables import Job
from shared.settings import Settings
from shared.states import JobState, Stage
from tests.support import parts
from tests.support.fleet import Fleet, make_fleet, wait_until
from tests.support.pipelines import STAGES, STEPS
from worker.standby import Standby


@pytest.fixture(scope="module")
def service(postgres_url: str, redis_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """One worker and one relay for all tests of this module."""
    folder = tmp_path_factory.mktemp("service")
    parts.flush(redis_server)
    settings = parts.make_settings(postgres_url, redis_server, folder).model_copy(update={"job_seconds": 8})
    with (
        parts.emptied_database(settings) as database,
        make_fleet(settings, database, Storage(settings.storage_url), folder) as fleet,
        fleet.relay(),
    ):
        fleet.worker()
        yield fleet


@pytest.fixture(autouse=True)
def promises(service: Fleet) -> Iterator[None]:
    """Whatever a test does to a job, the promises hold."""
    yield
    service.check_promises()


def test_a_job_passes_through_every_stage_and_publishes_a_model(service: Fleet) -> None:
    job = service.wait_for_state(service.submit(), JobState.SUCCEEDED)
    assert service.events(job.id) == [
        "job.queued",
        "job.started",
        *["job.stage", "job.progress"] * len(STAGES),
        "job.succeeded",
    ]
    with service.database.transaction() as session:
        events = queries.events(session, service.tenant_id, job.id).data
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        assert [event.data["stage"] for event in events if event.type == "job.stage"] == list(STAGES)
        (series,) = queries.metrics(session, service.tenant_id, job.id)
        assert [(p.stage, p.step, p.value) for p in series.points] == [
            (stage, step, 1 / step) for stage in STAGES for step in range(1, STEPS + 1)
        ]
        model = models.get(session, service.tenant_id, str(job.result_model))
        weights = queries.weights(session, service.tenant_id, job.id, "open_clip_model.safetensors")
    assert (job.attempt, job.verdict, job.stage, model.job) == (1, "passed", None, job.id)
    assert model.digest == weights.sha256
    assert service.storage.get(weights.key) == b"weights of " + job.id.encode()


def test_a_missed_threshold_quarantines_the_weights(service: Fleet) -> None:
    job = service.wait_for_state(service.submit(what="miss"), JobState.FAILED)
    assert job.error is not None
    assert (job.verdict, job.error.code, job.result_model) == ("failed", "thresholds_not_met", None)
    with service.database.transaction() as session:
        artifacts = queries.artifacts(session, service.tenant_id, job.id)
    assert {a.name: a.quarantined for a in artifacts} == {
        "report.json": False,
        "quarantine/open_clip_model.safetensors": True,
        "quarantine/open_clip_config.json": True,
    }


def test_a_failure_that_is_nobodys_fault_but_the_requests_is_not_tried_again(service: Fleet) -> None:
    job = service.wait_for_state(service.submit(what="fail"), JobState.FAILED)
    assert job.error is not None
    assert job.error.model_dump() == {
        "code": "invalid_checkpoint",
        "message": "It holds no weights.",
        "detail": {"file": "weights"},
    }
    assert (job.attempt, job.verdict) == (1, None)


@pytest.mark.parametrize("what", ["die", "raise"])
def test_a_lost_attempt_is_followed_by_one_that_goes_on_from_the_checkpoint(service: Fleet, what: str) -> None:
    job = service.wait_for_state(service.submit(what=what, attempts=1), JobState.SUCCEEDED)
    with service.database.transaction() as session:
        events = queries.events(session, service.tenant_id, job.id).data
    begun = [(event.data["attempt"], event.data["stage"]) for event in events if event.type == "job.stage"]
    crash = STAGES.index(Stage.FORGETTING)
    assert begun == [(1, stage) for stage in STAGES[: crash + 1]] + [(2, stage) for stage in STAGES[crash:]]
    assert service.events(job.id).count("job.requeued") == 1


@pytest.mark.parametrize(("what", "code"), [("die", "worker_lost"), ("raise", "internal_error")])
def test_attempts_are_used_up(service: Fleet, what: str, code: str) -> None:
    job = service.wait_for_state(service.submit(what=what), JobState.FAILED)
    assert job.error is not None
    assert (job.error.code, job.attempt) == (code, service.settings.max_attempts)
    assert service.events(job.id).count("job.started") == service.settings.max_attempts


def test_a_child_that_hangs_meets_the_time_limit(service: Fleet) -> None:
    job = service.wait_for_state(service.submit(what="hang"), JobState.FAILED)
    assert job.error is not None
    assert (job.error.code, job.attempt) == ("time_limit", 1)


def test_a_cancelled_job_takes_everything_it_started_with_it(service: Fleet) -> None:
    job = service.submit(what="family")
    (worker,) = service.workers

    def grandchildren() -> list[psutil.Process]:
        return [process for process in worker.family() if process.name() == "sleep"]

    wait_until(grandchildren, "the job started nothing")
    service.cancel(job)
    service.wait_for_state(job, JobState.CANCELLED)
    assert grandchildren() == []


@pytest.mark.parametrize("stage", STAGES)
def test_cancel_in_every_stage(service: Fleet, stage: Stage) -> None:
    job = service.submit(at=stage, what="hang")
    service.wait_for_stage(job, stage)
    asked = service.cancel(job)
    assert (asked.state, asked.cancel_requested) == (JobState.RUNNING, True)
    assert service.cancel(job).version == asked.version
    ended = service.wait_for_state(job, JobState.CANCELLED)
    assert (ended.error, ended.result_model) == (None, None)


def test_jobs_run_one_after_another_in_children_of_their_own(service: Fleet) -> None:
    waiting = [service.submit(seconds=0.05) for _ in range(3)]
    ended = [service.wait_for_state(job, JobState.SUCCEEDED) for job in waiting]
    for earlier, later in pairwise(ended):
        assert later.started_at is not None
        assert earlier.finished_at is not None
        assert later.started_at >= earlier.finished_at
    (worker,) = service.workers
    wait_until(lambda: len(worker.children()) == 1, "exactly one child stands by")


def test_a_worker_that_is_stopped_gives_its_job_back(service: Fleet) -> None:
    service.workers.pop().stop()
    job = service.submit(at=Stage.FORGETTING, what="hang", attempts=1)
    leaving = service.worker()
    service.wait_for_stage(job, Stage.FORGETTING)
    leaving.stop()
    assert service.events(job)[-1] == "job.requeued"
    with service.database.transaction() as session:
        limit = session.scalars(select(Job.max_attempts).where(Job.id == job)).one()
    assert limit == service.settings.max_attempts + 1  # the attempt did not count
    service.workers.remove(leaving)
    service.worker()
    assert service.wait_for_state(job, JobState.SUCCEEDED).attempt == 2


def test_the_queue_side_never_imports_torch() -> None:
    check = "import sys, worker.app; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check]).returncode == 0


def test_a_socket_that_an_earlier_process_left_is_replaced(tmp_path: Path) -> None:
    settings = Settings(_env_file=None)  # type: ignore[call-arg]
    first = Standby(settings, tmp_path, tmp_path)
    first.stop()
    second = Standby(settings, tmp_path, tmp_path)
    assert second.path == first.path
    assert second.path.is_socket()
    second.remove()
