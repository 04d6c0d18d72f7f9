"""The process that reads what strangers sent: archives, images, checkpoints. It is given no secret
and may take no more than it is allowed.

    python -m shared.files.inspector

Each line of its input is an order as JSON, each line of its output what came of it. It has
imported what it needs and forks for every order, so that an order costs no import, and what one
order breaks or leaves in memory ends with its fork. `shared.files.inspection` is the side of
whoever orders."""

import codecs
import ctypes
import errno
import gc
import json
import os
import resource
import select
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import numpy  # noqa: F401 - safetensors imports it late, which every fork would pay for
from PIL import Image

from shared.errors import InvalidRequest
from shared.files.image_archives import ArchiveLimits, inspect_archive
from shared.files.uploaded_checkpoints import unpack_checkpoint

PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
MAX_OPEN_FILES = 64
READ_BYTES = 1024 * 1024
MAX_ANSWER_BYTES = 64 * READ_BYTES
NICENESS = 5
"""Checking a file may wait for a request, and never the other way round."""
GRACE_SECONDS = 5
"""Between the signal that tells of the end of the time and the one that nobody can ignore."""

Answer = dict[str, Any]
"""One of `result`, `errors` ([pointer, detail] each), `exceeded` (a limit's name), `died` (a
signal), `fault` (a traceback).
"""


def _archive(path: str, limits: dict[str, int], options: dict[str, Any]) -> Answer:
    # Shards in an archive are unpacked beside it: whoever deletes the upload deletes them, too.
    tempfile.tempdir = str(Path(path).parent)
    return asdict(inspect_archive(Path(path), ArchiveLimits(**limits), **options))


def _checkpoint(path: str, filename: str, architecture: str | None, scratch: str) -> Answer:
    return asdict(unpack_checkpoint(Path(path), filename, architecture, Path(scratch)))


TASKS: dict[str, Callable[..., object]] = {"archive": _archive, "checkpoint": _checkpoint}


def main() -> None:
    """Work until the input ends."""
    os.nice(NICENESS)
    _prctl(PR_SET_NO_NEW_PRIVS, 1)
    Image.init()  # its plug-ins are imported now rather than in every fork
    codecs.lookup("cp437")  # so are the names in old zips
    gc.collect()
    gc.freeze()
    for line in sys.stdin.buffer:
        sys.stdout.buffer.write(json.dumps(_forked(json.loads(line))).encode() + b"\n")
        sys.stdout.buffer.flush()


def _forked(order: Answer) -> Answer:
    """Do an order in a fork, and end it where the input ends: nobody waits for it any more."""
    reading, writing = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _work(order, writing, parent)
    os.close(writing)
    try:
        content = _read_all(reading)
        if len(content) > MAX_ANSWER_BYTES:
            os.kill(pid, signal.SIGKILL)
    except EOFError:
        os.kill(pid, signal.SIGKILL)
        raise SystemExit from None
    finally:
        os.close(reading)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return (
            {"exceeded": "seconds"}
            if number == signal.SIGXCPU
            else {"died": signal.Signals(number).name}
        )
    with suppress(ValueError):
        answer = json.loads(content)
        if isinstance(answer, dict):
            return answer
    return {"died": f"exit code {os.waitstatus_to_exitcode(status)}"}


def _read_all(descriptor: int) -> bytes:
    """Return what a fork writes.

    Raises:
        EOFError: our own input has ended.
    """
    content = bytearray()
    while True:
        ready, _, _ = select.select([descriptor, sys.stdin], [], [])
        if descriptor in ready:
            chunk = os.read(descriptor, READ_BYTES)
            content += chunk
            if not chunk or len(content) > MAX_ANSWER_BYTES:
                return bytes(content)
        elif sys.stdin in ready:  # the next order comes after this answer, so this is the end
            raise EOFError


def _work(order: Answer, writing: int, parent: int) -> NoReturn:
    """Do an order within its limits, in the fork."""
    code = 1
    try:
        # within the limit of files it would be cut off, for everybody who imports it later
        sys.dont_write_bytecode = True
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == parent:
            _limit(order["limits"])
            answer = json.dumps(_done(order["task"], order["arguments"])).encode()
            with os.fdopen(writing, "wb") as out:
                out.write(answer)
            code = 0
    finally:
        os._exit(code)  # whatever happened: nothing of the fork may go on as if it was its parent


def _done(task: str, arguments: Answer) -> Answer:
    try:
        return {"result": TASKS[task](**arguments)}
    except InvalidRequest as error:
        if _lacks_memory(error):
            return {"exceeded": "memory"}
        return {"errors": [[found.pointer, found.detail] for found in error.errors]}
    except MemoryError:
        return {"exceeded": "memory"}
    except OSError as error:
        if error.errno in (errno.EFBIG, errno.ENOSPC, errno.EDQUOT):
            return {"exceeded": "file"}
        return {"fault": f"{type(error).__name__}: {error}"}
    except Exception as error:
        return {"fault": f"{type(error).__name__}: {error}"}


def _lacks_memory(error: BaseException | None) -> bool:
    """True if memory ran out, which readers of files tell as a fault of the file: in the words
    of C libraries, some of them.
    """
    while error is not None:
        if isinstance(error, MemoryError) or (
            isinstance(error, OSError) and "memory" in str(error).lower()
        ):
            return True
        error = error.__cause__ or error.__context__
    return False


def _limit(limits: dict[str, int]) -> None:
    """Lower what this process may take. Where memory is short all over, the kernel takes it from
    here first.
    """
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    for name, value in (
        (resource.RLIMIT_DATA, limits["memory"]),
        (resource.RLIMIT_AS, limits["memory"] + limits["mapped"]),
        (resource.RLIMIT_CPU, limits["seconds"]),
        (resource.RLIMIT_FSIZE, limits["file"]),
        (resource.RLIMIT_NOFILE, MAX_OPEN_FILES),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        most = resource.getrlimit(name)[1]
        value = value if most == resource.RLIM_INFINITY else min(value, most)
        hard = (
            value + GRACE_SECONDS
            if name == resource.RLIMIT_CPU and most == resource.RLIM_INFINITY
            else value
        )
        resource.setrlimit(name, (value, hard))


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    main()
