"""The real pipeline in a real worker: a small CLIP with random weights forgets a class."""

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from services.jobs import queries, submission
from shared.states import JobState, Stage
from tests.support import requests
from tests.support.fleet import Fleet, Worker, wait_until
from tests.support.reports import checked
from tests.support.tiny import write_model


@pytest.fixture
def worker(fleet: Fleet) -> Iterator[Worker]:
    """A worker with the real pipeline, and a relay."""
    fleet.settings = fleet.settings.model_copy(update={"pipeline": "worker.pipeline:run_pipeline", "lease_seconds": 30})
    with fleet.relay():
        yield fleet.worker()


def holds_torch(process: psutil.Process) -> bool:
    return any("libtorch" in entry.path for entry in process.memory_maps())


def test_a_killed_job_goes_on_and_its_report_says_so(fleet: Fleet, worker: Worker, tmp_path: Path) -> None:
    clip = write_model(tmp_path / "tiny", "vit")
    with fleet.database.transaction() as session:
        request = requests.names_only(clip, thresholds={"max_synthetic_accuracy": 1})
        job = submission.submit(session, fleet.tenant_id, request, fleet.settings).id
    wait_until(lambda: fleet.job(job).stage in {Stage.FORGETTING, Stage.AUDITING}, "it never forgot")
    for child in worker.children():
        child.kill()
    ended = fleet.wait_for_state(job, JobState.SUCCEEDED)
    fleet.check_promises()
    with fleet.database.transaction() as session:
        where = queries.report(session, fleet.tenant_id, job)
    report = checked(fleet.storage.get(where.key))
    assert (report.job_id, report.attempt, ended.attempt) == (job, 2, 2)
    assert {stage.stage for stage in report.stages if stage.resumed} >= {Stage.SYNTHESIZING}


def test_torch_lives_in_the_children_alone(worker: Worker) -> None:
    wait_until(lambda: any(holds_torch(child) for child in worker.children()), "the standby child imports nothing")
    others = [process for process in worker.family() if process not in worker.children()]
    assert others
    assert not any(holds_torch(process) for process in others)
