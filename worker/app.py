"""The Celery side: one task that only calls the supervisor, and a standby child kept by the worker's main process."""

import os

import structlog
from celery import Celery, signals

from shared.database import Database, make_engine
from shared.queue import make_queue
from shared.scratch import scratch_folder
from shared.settings import Settings, get_settings
from shared.states import RUN_JOB_TASK
from shared.telemetry import configure_logging
from worker.orphans import when_orphaned
from worker.runner import supervise
from worker.standby import Standby

log = structlog.get_logger()


def make_worker(settings: Settings, standby: Standby) -> Celery:
    """Return the Celery application with the task registered and the standby child tied to the worker's life."""
    app = make_queue(settings)
    database = Database(make_engine(settings))  # opened, but not connected, before the process of the task is forked

    @app.task(name=RUN_JOB_TASK)  # type: ignore[untyped-decorator]
    def run_job(job_id: str) -> None:
        supervise(
            job_id,
            database=database,
            settings=settings,
            socket_path=standby.path,
            stopping_file=standby.stopping_file,
        )

    main_process = os.getpid()
    signals.worker_process_init.connect(lambda **_: when_orphaned(lambda: os._exit(1), main_process), weak=False)
    signals.worker_ready.connect(lambda **_: standby.start(), weak=False)
    signals.worker_shutting_down.connect(lambda **_: standby.stop(), weak=False)
    return app


def main() -> None:
    """Run a worker until it is told to stop. SIGTERM gives a running job back at once."""
    settings = get_settings()
    configure_logging(settings)
    with scratch_folder("worker") as scratch:
        standby = Standby(settings.runtime_dir or scratch, scratch)
        try:
            app = make_worker(settings, standby)
            app.worker_main(["worker", "--without-gossip", "--without-mingle", f"--loglevel={settings.log_level}"])
        finally:
            standby.stop()
            standby.remove()
