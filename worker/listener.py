"""The Celery consumer of a worker, in a process of its own: `python -m worker.listener DESCRIPTOR
PARENT`.

It hears messages and passes each on as one byte to the worker, which answers with one byte when
it has looked into Postgres after it. So a worker that is busy takes one message more at most,
and the length of the queue stays what operators scale workers by. Nothing is lost when this
process is killed, or deaf."""

import os
import socket
import sys
import warnings
from contextlib import suppress

from celery import Celery, signals
from celery.exceptions import SecurityWarning

from shared.ports.queue import make_queue
from shared.settings import Settings, get_settings
from shared.states import FORMER_WAKE_TASK, WAKE_TASK
from shared.telemetry import configure_logging
from worker.orphans import when_orphaned

RING = b"r"
LOOKED = b"l"
ARGUMENTS = ("--quiet", "worker", "--without-gossip", "--without-mingle", "--without-heartbeat")


def make_listener(settings: Settings, worker: socket.socket) -> Celery:
    """Return the Celery application whose only task rings at `worker` and waits until it has
    looked.
    """
    app = make_queue(settings)

    def wake(*_: object, **__: object) -> None:
        with suppress(OSError):
            worker.sendall(RING)
            if worker.recv(1) == LOOKED:
                return
        os._exit(0)  # the worker is gone, or has another listener

    for name in (WAKE_TASK, FORMER_WAKE_TASK):
        app.task(name=name)(wake)
    signals.setup_logging.connect(lambda **_: configure_logging(settings), weak=False)
    return app


def main(descriptor: int, parent: int) -> None:
    """Consume messages until the worker ends this process."""
    when_orphaned(lambda: os._exit(1), parent)
    settings = get_settings()
    configure_logging(settings)
    warnings.simplefilter(
        "ignore", SecurityWarning
    )  # about root and pickle, of which this process takes none
    app = make_listener(settings, socket.socket(fileno=descriptor))
    app.worker_main([*ARGUMENTS, f"--loglevel={settings.log_level}"])


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
