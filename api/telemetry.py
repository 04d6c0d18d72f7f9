"""What an operator sees: counters of the HTTP door, and figures of the queue that are read when
they are asked for.
"""

from collections.abc import Callable, Iterator

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from services.jobs.queue_stats import Census

log = structlog.get_logger()

LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class HttpMetrics:
    """Requests by route and status, and how long each route takes until its response begins.

    A route is its template (`/jobs/{job_id}`), so that the number of series does not grow with
    the number of jobs."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "efface_http_requests",
            "HTTP requests by route and status.",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "efface_http_response_seconds",
            "Seconds until a response begins (a download or an event stream then goes on).",
            ["method", "route"],
            buckets=LATENCY_BUCKETS,
            registry=self.registry,
        )

    def observe(self, *, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)


class QueueMetrics(Collector):
    """Jobs by state, what waits and what is owed, who works, messages on the queue: at this
    moment.
    """

    def __init__(self, census: Census, messages: Callable[[], int]) -> None:
        self._census = census
        self._messages = messages

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges."""
        jobs = GaugeMetricFamily("efface_jobs", "Jobs by state.", labels=["state"])
        for state, count in self._census.jobs.items():
            jobs.add_metric([state], count)
        yield jobs
        yield GaugeMetricFamily(
            "efface_oldest_queued_seconds",
            "Age of the job that waits longest, 0 where none waits.",
            self._census.oldest_queued_seconds,
        )
        census, owed = self._census, self._census.owed
        for name, what, value in (
            (
                "efface_certificates_owed",
                "Jobs with a verdict whose certificate is not issued yet.",
                owed.certificates,
            ),
            (
                "efface_purges_owed",
                "Finished jobs and data sets of which something is still to be deleted.",
                owed.purges,
            ),
            (
                "efface_deliveries_owed",
                "Calls to webhooks that are due and not made yet.",
                owed.deliveries,
            ),
            (
                "efface_jobs_at_risk",
                "Unfinished jobs that are expected to end after they are due.",
                census.at_risk,
            ),
            (
                "efface_jobs_overdue",
                "Unfinished jobs that are past their due date.",
                census.overdue,
            ),
            (
                "efface_doorbells_silent",
                "Workers that hear no messages; they find jobs all the same.",
                census.doorbells_silent,
            ),
            (
                "efface_doorbell_renewals",
                "Listeners made anew by the workers alive.",
                census.doorbell_renewals,
            ),
        ):
            yield GaugeMetricFamily(name, what, value)
        alive = GaugeMetricFamily(
            "efface_processes", "Workers and relays that live.", labels=["kind", "state"]
        )
        for (kind, doing), count in census.processes.items():
            alive.add_metric([kind, doing], count)
        yield alive
        if census.relay_seconds is not None:
            yield GaugeMetricFamily(
                "efface_relay_seconds", "Since a relay was last heard of.", census.relay_seconds
            )
        try:
            yield GaugeMetricFamily(
                "efface_queue_messages", "Messages that wait in Redis.", self._messages()
            )
        except (
            Exception
        ) as error:  # whatever the broker's client raises: the other figures stand without it
            log.warning("metrics.queue_unreachable", error=str(error))
