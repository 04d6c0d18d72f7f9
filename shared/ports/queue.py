"""The queue, which is only a doorbell: a message says that some job waits, and losing it costs
nothing but seconds.

A message carries neither a job's id nor anything else, since the worker that hears it asks Postgres
whose turn it is. An idle worker looks there by itself, too (`worker.wakeups`).

The settings follow from what Celery on Redis does under fire: early acknowledgement (a message
is gone once it is taken; the lease and the reconciler bring the job back, not the broker), no
prefetch, no results, no retries, and nobody who reaches Redis can command a worker."""

from collections.abc import Iterator
from contextlib import contextmanager

import redis
from celery import Celery
from kombu.exceptions import KombuError

from shared.errors import Unavailable
from shared.settings import Settings
from shared.states import WAKE_TASK

VISIBILITY_SECONDS = 3600
QUEUE = "efface"
ANSWER_SECONDS = 5.0
"""A Redis that answers later is taken to be away."""


def make_queue(settings: Settings) -> Celery:
    """Return the Celery application that both sides use: one sends by task name, the worker
    registers the task.
    """
    app = Celery("efface", broker=settings.redis_url.get_secret_value(), set_as_current=False)
    app.conf.update(
        result_backend=None,
        task_ignore_result=True,  # Postgres holds results
        task_acks_late=False,
        task_reject_on_worker_lost=False,
        # the task only rings: jobs run elsewhere, where no message can set them a time limit
        worker_pool="solo",
        worker_concurrency=1,
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        broker_transport_options={
            "visibility_timeout": VISIBILITY_SECONDS,
            "socket_timeout": ANSWER_SECONDS,
            "socket_connect_timeout": ANSWER_SECONDS,
            "socket_keepalive": True,
            "health_check_interval": 25,
            "retry_on_timeout": True,
            "global_keyprefix": "efface:",
        },
        visibility_timeout=VISIBILITY_SECONDS,
        result_backend_transport_options={"visibility_timeout": VISIBILITY_SECONDS},
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,  # Redis may be away for as long as it likes
        worker_cancel_long_running_tasks_on_connection_loss=False,
        task_serializer="json",
        accept_content=["json"],
        task_track_started=False,
        task_default_queue=QUEUE,
        enable_utc=True,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
    )
    return app


class Doorbell:
    """Rings the workers.

    Raises:
        Unavailable: Redis does not answer.
    """

    def __init__(self, app: Celery) -> None:
        self._app = app

    def ring(self) -> None:
        """Put a message on the queue: some job waits."""
        with _translated():
            self._app.send_task(WAKE_TASK, retry=False)

    def ping(self) -> None:
        """Ask whether Redis answers."""
        with _translated(), self._app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, timeout=2)

    def length(self) -> int:
        """Return how many messages wait."""
        with _translated(), self._app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, timeout=2)
            return int(connection.default_channel.client.llen(QUEUE))


@contextmanager
def _translated() -> Iterator[None]:
    """Turn the errors of kombu and of Redis' client into ours."""
    try:
        yield
    except (KombuError, redis.RedisError, OSError) as error:
        raise Unavailable(f"Redis does not answer: {error}") from error
