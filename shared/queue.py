"""The queue, which is only a doorbell: a message holds a job id, and losing it costs a minute at most.

The settings follow from what Celery on Redis does under fire: early acknowledgement (a message is gone once it is
taken; the lease and the reconciler bring the job back, not the broker), no prefetch, no results, no retries.
"""

from celery import Celery

from shared.settings import Settings
from shared.states import RUN_JOB_TASK

VISIBILITY_SECONDS = 3600


def make_queue(settings: Settings) -> Celery:
    """Return the Celery application that both sides use: one sends by task name, the worker registers the task."""
    app = Celery("efface", broker=settings.redis_url.get_secret_value(), set_as_current=False)
    app.conf.update(
        result_backend=None,
        task_ignore_result=True,  # Postgres holds results
        task_acks_late=False,
        task_reject_on_worker_lost=False,
        worker_pool="prefork",
        worker_concurrency=1,  # one worker per GPU; torch lives in a spawned child
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        broker_transport_options={
            "visibility_timeout": VISIBILITY_SECONDS,
            "socket_timeout": 30,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 25,
            "retry_on_timeout": True,
            "global_keyprefix": "efface:",
        },
        visibility_timeout=VISIBILITY_SECONDS,
        result_backend_transport_options={"visibility_timeout": VISIBILITY_SECONDS},
        broker_connection_retry_on_startup=True,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        task_serializer="json",
        accept_content=["json"],
        task_track_started=False,
        task_time_limit=None,  # the supervisor keeps the wall clock, per job
        task_default_queue="efface",
        enable_utc=True,
        worker_hijack_root_logger=False,
    )
    return app


class Doorbell:
    """Rings the workers."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    def ring(self, job_id: str, attempt: int) -> None:
        """Put a message for a job on the queue; `attempt` only makes the message's id readable in the broker's logs."""
        self._app.send_task(RUN_JOB_TASK, args=[job_id], task_id=f"{job_id}:{attempt}", retry=False)

    def ping(self) -> None:
        """Raise unless the broker answers."""
        with self._app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, timeout=2)

    def length(self) -> int:
        """Return how many messages wait."""
        with self._app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, timeout=2)
            return int(connection.default_channel.client.llen("efface"))
