"""A process's scratch folder: what is received and unpacked there, images among it, must not
outlive it, however it ends.
"""

import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

log = structlog.get_logger()

LOCK_NAME = "lock"


@contextmanager
def scratch_folder(role: str) -> Iterator[Path]:
    """Yield a new folder that is deleted at the end; first delete those of processes in this role
    that were killed.

    The kernel releases the lock of a process that is gone, so a folder whose lock is free has no
    owner. The processes that it forks inherit the lock: as long as one of them lives, the folder
    is taken."""
    prefix = f"efface-{role}-"
    with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as name:
        folder = Path(name)
        with (folder / "new").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            (folder / "new").rename(folder / LOCK_NAME)  # only now: nobody may find it unlocked
            _delete_abandoned(folder, prefix)
            yield folder


def _delete_abandoned(own: Path, prefix: str) -> None:
    for folder in own.parent.glob(f"{prefix}*"):
        if folder == own or not (folder / LOCK_NAME).is_file():
            continue
        with (folder / LOCK_NAME).open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            shutil.rmtree(folder, ignore_errors=True)
            log.warning("scratch.deleted", folder=folder.name)
