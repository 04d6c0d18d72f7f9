"""Real workers and relays for tests, and the promises that hold whatever was done to them."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import psutil
from sqlalchemy import select

from services.access import api_keys
from services.jobs import ending, queries, submission
from services.relay import run_relay
from shared.ports.object_storage import Storage
from shared.ports.queue import Doorbell, make_queue
from shared.postgres.database import Database
from shared.postgres.tables import Artifact, Job, JobEvent, Model, Outbox
from shared.schemas.job import JobView
from shared.settings import Settings
from shared.states import JobState
from tests.support import requests
from tests.support.pipelines import USED

ROOT = Path(__file__).parents[2]
MARK = "EFFACE_TEST_MARK"
PATIENCE_SECONDS = 60.0
"""How long a test waits for what must come; nothing is asserted about how soon it comes."""


def environment(settings: Settings) -> dict[str, str]:
    """Return the variables with which another process gets the same settings."""
    values = settings.model_dump(mode="json", exclude_defaults=True) | {
        "database_url": settings.database_url.get_secret_value(),
        "redis_url": settings.redis_url.get_secret_value(),
        "master_key": settings.master_key.get_secret_value() if settings.master_key else "",
    }
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}
    return os.environ | {f"EFFACE_{name.upper()}": text for name, text in texts.items()}


def wait_until(condition: Callable[[], object], what: str, seconds: float = PATIENCE_SECONDS) -> None:
    """Return once `condition` holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:g} s in vain: {what}")
        time.sleep(0.05)


def marked(marks: Collection[str]) -> list[psutil.Process]:
    """Return every living process with one of the marks in its environment."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            if process.environ().get(MARK) in marks:
                found.append(process)
    return found


class Member:
    """A process of the service with all that it starts, known by a mark in their environment."""

    def __init__(self, arguments: Sequence[str], settings: Settings, log: Path, temporary: Path) -> None:
        self.mark = f"member-{uuid4()}"
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                cwd=ROOT,
                env=environment(settings) | {MARK: self.mark, "TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def family(self) -> list[psutil.Process]:
        """Return every living process of this member, whoever its parent is by now."""
        return marked({self.mark})

    def signal_all(self, number: signal.Signals) -> None:
        """Send a signal to every process."""
        for process in self.family():
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def plain_log(self) -> str:
        """Return what it has logged, without the colours."""
        return re.sub(r"\x1b\[[0-9;]*m", "", self.log.read_text())

    def stop(self) -> None:
        """Ask it to stop and wait until nothing of it is left."""
        with suppress(psutil.NoSuchProcess):
            self.process.terminate()
        self.wait_gone()

    def wait_gone(self) -> None:
        """Wait until nothing of it is left."""
        self.process.wait(PATIENCE_SECONDS)
        wait_until(lambda: not self.family(), f"processes are left: {self.family()}")


class Worker(Member):
    """A worker."""

    def __init__(self, settings: Settings, log: Path, temporary: Path) -> None:
        super().__init__(["worker"], settings, log, temporary)

    def children(self) -> list[psutil.Process]:
        """Return the children that work or stand by."""
        found = []
        for process in self.family():
            with suppress(psutil.NoSuchProcess):
                if "worker.child" in process.cmdline():
                    found.append(process)
        return found

    def supervisor(self) -> psutil.Process:
        """Return the process that supervises jobs."""
        return psutil.Process(self.process.pid)

    def listener(self) -> psutil.Process | None:
        """Return the process that hears messages; None for the moment in which there is none."""
        for process in self.family():
            with suppress(psutil.NoSuchProcess):
                if "worker.listener" in process.cmdline():
                    return process
        return None


class Fleet:
    """Everything of the service but its HTTP door, on the session's Postgres and Redis."""

    def __init__(self, settings: Settings, database: Database, storage: Storage, folder: Path, temporary: Path) -> None:
        own = {"pipeline": "tests.support.pipelines:run", "path_roots": [folder], "child_environment": [MARK]}
        self.settings = settings.model_copy(update=own)
        self.database, self.storage, self.folder, self.temporary = database, storage, folder, temporary
        self.doorbell = Doorbell(make_queue(settings))
        self.workers: list[Worker] = []
        with database.transaction() as session:
            self.tenant_id = api_keys.tenant_named(session, "tests").id
        (folder / "clip").mkdir()

    def worker(self) -> Worker:
        """Start a worker."""
        log = self.folder / f"worker-{len(list(self.folder.glob('*.log')))}.log"
        worker = Worker(self.settings, log, self.temporary)
        self.workers.append(worker)
        return worker

    @contextmanager
    def relay(self) -> Iterator[None]:
        """Run a relay while the block lasts."""
        stop = threading.Event()
        arguments = (self.database, self.doorbell, self.storage, self.settings, stop)
        thread = threading.Thread(target=run_relay, args=arguments)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def submit(self, **metadata: object) -> str:
        """Submit a job that behaves as `tests.support.pipelines` says, and return its id."""
        request = requests.names_only(self.folder / "clip", metadata=metadata)
        with self.database.transaction() as session:
            return submission.submit(session, self.tenant_id, request, self.settings).id

    def job(self, job_id: str) -> JobView:
        """Return a job as its owner sees it."""
        with self.database.transaction() as session:
            return queries.get(session, self.tenant_id, job_id)

    def cancel(self, job_id: str) -> JobView:
        """Cancel a job."""
        with self.database.transaction() as session:
            return ending.cancel(session, self.tenant_id, job_id)

    def events(self, job_id: str) -> list[str]:
        """Return the types of a job's events, in order."""
        with self.database.transaction() as session:
            return list(session.scalars(select(JobEvent.type).where(JobEvent.job_id == job_id).order_by(JobEvent.seq)))

    def wait_for_state(self, job_id: str, state: JobState) -> JobView:
        """Wait until a job is in a state."""
        wait_until(lambda: self.job(job_id).state == state, f"{job_id} is {self.job(job_id)!r}, not {state}")
        return self.job(job_id)

    def wait_for_stage(self, job_id: str, stage: str, attempt: int = 1) -> None:
        """Wait until an attempt at a job is in a stage."""

        def there() -> bool:
            job = self.job(job_id)
            return job.stage == stage and job.attempt == attempt

        wait_until(there, f"{job_id} never came to {stage}")

    def wait_for_purge(self) -> None:
        """Wait until nothing is left to delete."""

        def purged() -> bool:
            with self.database.transaction() as session:
                return not session.scalars(select(Job.id).where(Job.purged_at.is_(None))).all()

        wait_until(purged, "leftovers are not deleted")

    def check_promises(self) -> None:
        """Every job is in one final state; a succeeded one has exactly one published result, another has none.

        In storage lies what the winning attempt left and nothing else, nothing waits to be sent, and no scratch is left.
        """
        self.wait_for_purge()
        wait_until(lambda: not list(self.temporary.rglob(USED)), "a job's scratch folder is left")
        with self.database.transaction() as session:
            assert session.scalars(select(Outbox)).all() == []
            for job in session.scalars(select(Job)):
                assert JobState(job.state).final
                types = self.events(job.id)
                finals = [kind for kind in types if kind.removeprefix("job.") in {"succeeded", "failed", "cancelled"}]
                assert finals == [f"job.{job.state}"] == types[-1:]
                models = session.scalars(select(Model.id).where(Model.job_id == job.id)).all()
                succeeded = job.state == JobState.SUCCEEDED
                assert models == ([job.result_model_id] if succeeded else [])
                artifacts = session.scalars(select(Artifact).where(Artifact.job_id == job.id)).all()
                assert {a.attempt for a in artifacts} <= {job.attempt}
                stored = self.storage.list(f"tenants/{self.tenant_id}/jobs/{job.id}")
                assert {o.key for o in stored} == {a.key for a in artifacts}
                assert succeeded == any(a.name.startswith("model/") for a in artifacts)


@contextmanager
def make_fleet(settings: Settings, database: Database, storage: Storage, folder: Path) -> Iterator[Fleet]:
    """Give a fleet; when the block ends its workers are stopped, and nothing of them may be left."""
    with TemporaryDirectory(prefix="fleet-") as temporary:  # a short path, for there are sockets in it
        found = Fleet(settings, database, storage, folder, Path(temporary))
        try:
            yield found
        finally:
            for worker in found.workers:
                worker.signal_all(signal.SIGCONT)
                worker.stop()
