"""The process that does the work: `python -m worker.child LISTENING_DESCRIPTOR`.

It imports torch, waits for one connection, runs one job and exits. It leads its own process group, so that whoever kills the
group gets everything. It ends itself when its supervisor is gone or silent for a lease, and when the worker is gone.
"""

import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

import structlog

from shared.errors import JobFailure
from shared.schemas.job import JobError
from shared.schemas.spec import JobSpec
from shared.settings import get_settings
from shared.states import Stage
from shared.storage import Storage
from shared.telemetry import configure_logging
from worker.orphans import exit_with_parent
from worker.protocol import Lines

log = structlog.get_logger()

READY = "ready"
TAKEN = "taken"


class SocketProgress:
    """Sends progress to the supervisor."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self._lock = threading.Lock()

    def stage(self, stage: Stage) -> None:
        """Say that a stage begins."""
        self.send({"type": "stage", "stage": stage})

    def step(
        self, stage: Stage, step: int, total: int | None = None, metrics: Mapping[str, float] | None = None
    ) -> None:
        """Say that a step is done."""
        self.send({"type": "step", "stage": stage, "step": step, "total": total, "metrics": dict(metrics or {})})

    def send(self, message: dict[str, object]) -> None:
        """Send one message; threads may call it."""
        with self._lock:
            self._lines.send(message)


def main(descriptor: int) -> None:
    """Wait for one job and run it."""
    exit_with_parent()
    settings = get_settings()
    configure_logging(settings)
    module, _, function = settings.pipeline.partition(":")
    pipeline = getattr(import_module(module), function)  # the expensive imports happen here, before there is a job
    print(READY, flush=True)  # noqa: T201 - the keeper reads it
    with socket.socket(fileno=descriptor) as listener:
        connection, _ = listener.accept()
    print(TAKEN, flush=True)  # noqa: T201
    lines = Lines(connection)
    job = _first_message(lines)
    threading.Thread(target=_watch, args=(lines, float(job["lease_seconds"])), daemon=True).start()
    progress = SocketProgress(lines)
    progress.send({"type": "hello", "pid": os.getpid()})
    progress.send(_run(pipeline, JobSpec.model_validate(job["spec"]), progress))
    time.sleep(settings.kill_grace_seconds + 30)  # the supervisor commits, then ends us


def _run(pipeline: object, spec: JobSpec, progress: SocketProgress) -> dict[str, object]:
    """Run the pipeline and return the last message."""
    settings = get_settings()
    structlog.contextvars.bind_contextvars(job_id=spec.job_id, attempt=spec.attempt)
    storage = Storage(settings.storage_url)
    try:
        with tempfile.TemporaryDirectory(prefix="efface-job-") as scratch:
            result = pipeline(spec, storage, progress, Path(scratch), settings.device)  # type: ignore[operator]
        return {"type": "result", "result": result.model_dump(mode="json")}
    except JobFailure as failure:
        error = JobError(code=failure.code, message=failure.detail, detail=failure.data)
        return {"type": "error", "error": error.model_dump(mode="json")}


def _first_message(lines: Lines) -> dict[str, object]:
    while True:
        messages = lines.receive(None)
        if messages is None:
            _end_group()
        elif messages:
            return messages[0]


def _watch(lines: Lines, lease_seconds: float) -> None:
    """End the group when the supervisor is gone, or silent for longer than the lease that it should be renewing."""
    while lines.receive(lease_seconds):
        pass
    log.warning("child.abandoned")
    _end_group()


def _end_group() -> None:
    os.killpg(os.getpgid(0), signal.SIGKILL)


if __name__ == "__main__":
    main(int(sys.argv[1]))
