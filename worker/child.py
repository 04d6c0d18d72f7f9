"""The process that does the work: `python -m worker.child LISTENING_DESCRIPTOR PARENT NICENESS`.

It confines itself, imports torch, waits for one connection, runs one job and exits. It leads its
own process group, so that whoever kills the group gets everything. It ends itself when its
supervisor is gone or silent for a lease, and when the worker is gone."""

import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path

import structlog

from shared.errors import EffaceError, JobFailure, Unavailable
from shared.ports.object_storage import Storage
from shared.schemas.job import JobError
from shared.schemas.result import PipelineResult
from shared.schemas.spec import JobSpec
from shared.settings import Settings, get_settings
from shared.states import Stage
from shared.telemetry import configure_logging
from worker.confinement import confine
from worker.narrowed import narrowed
from worker.orphans import when_orphaned
from worker.ports import Progress
from worker.protocol import Lines, Message

log = structlog.get_logger()

Pipeline = Callable[[JobSpec, Storage, Progress, Path, str], PipelineResult]
"""Specification, storage, progress, an empty folder, device -> how it ended."""

INTERNAL_ERROR = "internal_error"

CONFINED = "confined: "
"""How far that went follows."""
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
        self,
        stage: Stage,
        step: int,
        total: int | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        """Say that a step is done."""
        self.send(
            {
                "type": "step",
                "stage": stage,
                "step": step,
                "total": total,
                "metrics": dict(metrics or {}),
            }
        )

    def send(self, message: dict[str, object]) -> None:
        """Send one message; threads may call it."""
        with self._lock:
            self._lines.send(message)


def main(descriptor: int, parent: int, niceness: int) -> None:
    """Wait for one job and run it.

    Args:
        descriptor: of the listening socket.
        parent: the worker's main process.
        niceness: of the imports, 0 to 19.
    """
    Settings.model_config["env_file"] = None  # the worker has passed on what we may know of it
    settings = get_settings()
    confined = confine(settings)
    when_orphaned(_end_group, parent)
    configure_logging(settings)
    print(f"{CONFINED}{confined}", flush=True)  # noqa: T201 - the keeper reads it
    if not settings.allow_hub:
        os.environ["HF_HUB_OFFLINE"] = (
            "1"  # a config may name a tower or tokenizer that would be fetched
        )
    with ThreadPoolExecutor(1) as pool:
        pipeline = pool.submit(_import_pipeline, settings.pipeline, niceness).result()
    with socket.socket(fileno=descriptor) as listener:
        connection, _ = listener.accept()
    print(TAKEN, flush=True)  # noqa: T201 - this, too
    lines = Lines(connection)
    job = _first_message(lines)
    threading.Thread(target=_watch, args=(lines, float(job["lease_seconds"])), daemon=True).start()
    progress = SocketProgress(lines)
    progress.send({"type": "hello", "pid": os.getpid()})
    progress.send(_run(pipeline, JobSpec.model_validate(job["spec"]), progress))
    time.sleep(settings.kill_grace_seconds + 30)  # the supervisor commits, then ends us


def _import_pipeline(name: str, niceness: int) -> Pipeline:
    """Do the expensive imports, in a thread: so they need not slow the job that another child works
    on.

    On Linux each thread has a priority of its own, and the main thread, which will do the work,
    keeps its own."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)
    module, _, function = name.partition(":")
    pipeline: Pipeline = getattr(import_module(module), function)
    return pipeline


def _run(pipeline: Pipeline, spec: JobSpec, progress: SocketProgress) -> Message:
    """Run the pipeline and return the last message."""
    settings = get_settings()
    structlog.contextvars.bind_contextvars(job_id=spec.job_id, attempt=spec.attempt)
    storage = narrowed(Storage(settings.storage_url), spec)
    try:
        with tempfile.TemporaryDirectory(prefix="efface-job-") as scratch:
            result = pipeline(spec, storage, progress, Path(scratch), settings.device)
        return {"type": "result", "result": result.model_dump(mode="json")}
    except JobFailure as failure:
        return _error(
            JobError(code=failure.code, message=failure.detail, detail=failure.data), final=True
        )
    except EffaceError as error:
        return _error(
            JobError(code=error.code, message=error.detail),
            final=not isinstance(error, Unavailable),
        )
    except Exception as error:
        log.exception("child.failed")
        message = f"it failed with {type(error).__name__}, which the worker's log has more about"
        return _error(JobError(code=INTERNAL_ERROR, message=message), final=False)


def _error(error: JobError, *, final: bool) -> Message:
    return {"type": "error", "error": error.model_dump(mode="json"), "final": final}


def _first_message(lines: Lines) -> Message:
    while True:
        messages = lines.receive(None)
        if messages is None:
            _end_group()
        elif messages:
            return messages[0]


def _watch(lines: Lines, lease_seconds: float) -> None:
    """End the group when the supervisor is gone, or silent for longer than the lease that it
    should be renewing.
    """
    silent_after = time.monotonic() + lease_seconds
    while (left := silent_after - time.monotonic()) > 0 and (
        messages := lines.receive(left)
    ) is not None:
        if messages:
            silent_after = time.monotonic() + lease_seconds
    log.warning("child.abandoned")
    _end_group()


def _end_group() -> None:
    os.killpg(os.getpgid(0), signal.SIGKILL)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
