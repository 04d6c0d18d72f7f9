"""A process that must not outlive its parent."""

import os
import threading
import time
from collections.abc import Callable

POLL_SECONDS = 0.5


def when_orphaned(act: Callable[[], object], parent: int) -> None:
    """Call `act` in a thread when `parent` is not, or is no longer, the parent of this process.

    A pipe that closes would tell sooner, but forked siblings inherit its other end and keep it
    open."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(POLL_SECONDS)
        act()

    threading.Thread(target=watch, name="when-orphaned", daemon=True).start()
