"""A process that must not outlive its parent."""

import os
import threading
import time

POLL_SECONDS = 0.5


def exit_with_parent(parent: int | None = None) -> None:
    """End this process, at once and without clean-up, when its parent (`parent`, or the present one) is gone.

    A pipe that closes would tell sooner, but forked siblings inherit its other end and keep it open.
    """
    expected = os.getppid() if parent is None else parent

    def watch() -> None:
        while os.getppid() == expected:
            time.sleep(POLL_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, name="exit-with-parent", daemon=True).start()
