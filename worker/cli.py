"""The commands that this package brings to `efface`. Thin: torch and Celery are imported when a command runs."""

import os
import sys


def worker() -> None:
    """Run a worker: it takes jobs from the queue, one at a time."""
    # Celery reads REMAP_SIGTERM when it is imported: a SIGTERM then means "stop soon and give the work back".
    environment = os.environ | {"REMAP_SIGTERM": "SIGQUIT"}
    os.execve(sys.executable, [sys.executable, "-m", "worker"], environment)  # noqa: S606
