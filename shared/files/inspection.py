"""Orders to processes that read what strangers sent (`inspector`): a few of them, each with
limits and without secrets.
"""

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import structlog

from shared.errors import EffaceError, FieldError, InvalidRequest, Unavailable
from shared.files.image_archives import ArchiveLimits, ArchiveSummary
from shared.files.uploaded_checkpoints import CheckpointFiles
from shared.settings import MIB, Settings

log = structlog.get_logger()

ROOT = Path(__file__).parents[2]
PASSED_ON = (
    "LANG",
    "LC_ALL",
    "LD_LIBRARY_PATH",
    "PYTHONHOME",
    "PYTHONPYCACHEPREFIX",
    "PYTHONDONTWRITEBYTECODE",
)
"""Variables that an inspector gets. None of them is a secret or names another part of the
service.
"""
LOOK_SECONDS = 0.1
LEAST_SECONDS = 60.0
SECONDS_PER_MIB = 5.0
"""Processor time that a file gets for its size. Drawings that are packed well take most: about
one for each MiB.
"""
WALL_OVER_CPU = 4
"""The clock on the wall may run this much faster: a busy machine is no fault of the file."""
Answer = dict[str, Any]


class Gone(EffaceError):
    """Nobody waits for the answer any more."""

    code = "gone"
    title = "The client has left"


class InspectorFault(RuntimeError):
    """An inspector failed in a way that no file should bring about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectionLimits:
    """What one order may take."""

    memory: int
    """Bytes."""
    mapped: int
    """Bytes of files that may be mapped besides, which takes address space and no memory."""
    seconds: int
    """Processor time; four times as long on the wall."""
    file: int
    """Bytes of any file that it writes."""


def limits_for(size_bytes: int, settings: Settings, *, file_bytes: int = 0) -> InspectionLimits:
    """Return what a file of `size_bytes` gets: small ones get less time, so that many of them
    cannot take hours.
    """
    earned = LEAST_SECONDS + SECONDS_PER_MIB * size_bytes / MIB
    seconds = max(1, int(min(settings.max_inspection_seconds, earned)))
    mapped = max(size_bytes, file_bytes)
    return InspectionLimits(
        memory=settings.max_inspection_bytes, mapped=mapped, seconds=seconds, file=file_bytes
    )


class Inspectors:
    """A few inspectors, started when they are first needed and kept. Safe to use from many
    threads.
    """

    def __init__(self, count: int) -> None:
        self._free = threading.Semaphore(count)
        self._lock = threading.Lock()
        self._idle: list[_Inspector] = []
        self._all: set[_Inspector] = set()
        self._closed = False

    def archive(
        self,
        path: Path,
        limits: ArchiveLimits,
        *,
        within: InspectionLimits,
        gone: threading.Event | None = None,
        **options: object,
    ) -> ArchiveSummary:
        """Do what `shared.files.image_archives.inspect_archive` does with these `options`.

        Raises:
            InvalidRequest: as there, or a limit was reached.
            Gone: `gone` was set meanwhile.
        """
        arguments = {"path": str(path), "limits": asdict(limits), "options": options}
        found = self._result("archive", arguments, within, gone)
        return ArchiveSummary(**found | {"warnings": tuple(found["warnings"])})

    def checkpoint(
        self,
        path: Path,
        filename: str,
        architecture: str | None,
        scratch: Path,
        *,
        within: InspectionLimits,
        gone: threading.Event | None = None,
    ) -> CheckpointFiles:
        """Do what `shared.files.uploaded_checkpoints.unpack_checkpoint` does.

        Raises:
            InvalidRequest: as there, or a limit was reached.
            Gone: `gone` was set meanwhile.
        """
        arguments = {
            "path": str(path),
            "filename": filename,
            "architecture": architecture,
            "scratch": str(scratch),
        }
        return CheckpointFiles(**self._result("checkpoint", arguments, within, gone))

    def close(self) -> None:
        """End all of them, with what they are doing."""
        with self._lock:
            self._closed = True
            inspectors = list(self._all)
        for inspector in inspectors:
            inspector.kill()

    def _result(
        self, task: str, arguments: Answer, within: InspectionLimits, gone: threading.Event | None
    ) -> Any:  # noqa: ANN401
        order = {"task": task, "arguments": arguments, "limits": asdict(within)}
        leaving = gone or threading.Event()
        with self._taken(leaving) as inspector:
            answer = inspector.ask(order, WALL_OVER_CPU * within.seconds, leaving)
        if "result" in answer:
            return answer["result"]
        if "errors" in answer:
            raise InvalidRequest(
                [FieldError(pointer, detail) for pointer, detail in answer["errors"]]
            )
        if "exceeded" in answer:
            raise InvalidRequest.at("", _exceeded(str(answer["exceeded"]), within))
        if "died" in answer:
            log.warning("inspector.died", task=task, how=answer["died"])
            raise InvalidRequest.at(
                "", f"decoding it ended at once ({answer['died']}); the file is damaged or hostile"
            )
        raise InspectorFault(f"{task}: {answer.get('fault')}")

    @contextmanager
    def _taken(self, gone: threading.Event) -> Iterator["_Inspector"]:
        """Give an inspector that nobody else uses; one that lives goes back."""
        while not self._free.acquire(timeout=LOOK_SECONDS):
            if gone.is_set():
                raise Gone("The client has left.")
        try:
            with self._lock:
                if self._closed:
                    raise Unavailable("The service is about to stop; send it again.")
                inspector = self._idle.pop() if self._idle else self._started()
                if not inspector.lives:
                    inspector.kill()  # which lets go of what is left of it
                    inspector = self._started()
            yield inspector
            with self._lock:
                if inspector.lives:
                    self._idle.append(inspector)
        finally:
            self._free.release()

    def _started(self) -> "_Inspector":
        inspector = _Inspector(self._all.discard)
        self._all.add(inspector)
        return inspector


class _Inspector:
    """One process."""

    def __init__(self, ended: Callable[["_Inspector"], None]) -> None:
        environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        self._ended = ended
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "shared.files.inspector"],
            cwd="/",
            env=environment
            | {
                "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)]),
                "OPENBLAS_NUM_THREADS": "1",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # libraries print there what the file leads them to
            start_new_session=True,
        )

    @property
    def lives(self) -> bool:
        """Whether it can be asked."""
        return self._process.poll() is None

    def ask(self, order: Answer, wall_seconds: float, gone: threading.Event) -> Answer:
        """Return what came of an order; kill the process where that takes too long, or nobody
        waits any more.
        """
        try:
            return self._asked(order, time.monotonic() + wall_seconds, gone)
        except BaseException:
            self.kill()
            raise

    def _asked(self, order: Answer, deadline: float, gone: threading.Event) -> Answer:
        sender, receiver = self._process.stdin, self._process.stdout
        assert sender is not None and receiver is not None  # noqa: S101 - both are pipes
        try:
            sender.write(json.dumps(order).encode() + b"\n")
            sender.flush()
        except BrokenPipeError:
            raise InspectorFault("the inspector has ended") from None
        content = bytearray()
        while not content.endswith(b"\n"):
            if select.select([receiver], [], [], LOOK_SECONDS)[0]:
                chunk = os.read(receiver.fileno(), MIB)
                if not chunk:
                    raise InspectorFault("the inspector has ended")
                content += chunk
            elif gone.is_set():
                raise Gone("The client has left.")
            elif time.monotonic() > deadline:
                self.kill()
                return {"exceeded": "wall"}
        answer: Answer = json.loads(content)
        return answer

    def kill(self) -> None:
        """End it, and the fork that does an order."""
        if self.lives:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):  # what was not yet sent
                    pipe.close()
        self._ended(self)


def _exceeded(limit: str, within: InspectionLimits) -> str:
    """Say which limit was reached, and what to do."""
    memory = (
        f"{within.memory / 1024**3:g} GiB"
        if within.memory >= 1024**3
        else f"{within.memory // MIB} MiB"
    )
    return {
        "memory": (
            f"decoding took more than {memory} of memory (EFFACE_MAX_INSPECTION_BYTES); "
            "give "
            "smaller files"
        ),
        "seconds": (
            f"decoding took more than {within.seconds} s of processor time; give fewer or "
            "smaller files"
        ),
        "wall": (
            f"decoding took more than {WALL_OVER_CPU * within.seconds} s; give fewer or "
            "smaller files, or try again later"
        ),
        "file": (
            f"unpacks to a file of more than {within.file} bytes, which there is no room for; "
            "give the file itself"
        ),
    }[limit]
