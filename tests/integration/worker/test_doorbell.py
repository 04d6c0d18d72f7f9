"""Whatever becomes of the connections to Redis, no job waits beside an idle worker: real Redis, relay and worker."""

import json
from collections.abc import Iterator

import pytest
import redis
from kombu import Connection

from services.fleet import processes
from shared.ports.embedded_servers import embedded_redis, free_port
from shared.ports.object_storage import Storage
from shared.ports.queue import make_queue
from shared.states import JobState, ProcessKind, Stage
from tests.support import parts
from tests.support.dropping import Dropper, Proxy, play, proxied, wait_for
from tests.support.fleet import Fleet, make_fleet, wait_until

KINDS = (
    "CLIENT KILL, once",
    "CLIENT KILL, five times in two seconds",
    "CLIENT KILL of BRPOP",
    "CLIENT KILL between two BRPOPs",
    "connections cut by a proxy",
    "half-open connections",
    "Redis stopped for three seconds",
    "failover to an empty Redis",
    "Redis away for four seconds",
)


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A Redis of this module's own, behind a proxy: it is stopped and emptied."""
    with embedded_redis(tmp_path_factory.mktemp("dropped"), free_port()) as url, proxied(url) as proxy:
        proxy.direct = url  # type: ignore[attr-defined]
        yield proxy


@pytest.fixture(scope="module")
def service(postgres_url: str, proxy: Proxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """One worker and one relay for all tests of this module."""
    folder = tmp_path_factory.mktemp("service")
    settings = parts.make_settings(postgres_url, proxy.url, folder).model_copy(
        update={"lease_seconds": 30, "log_format": "json", "look_seconds": 5}
    )
    with (
        parts.emptied_database(settings) as database,
        make_fleet(settings, database, Storage(settings.storage_url), folder) as fleet,
        fleet.relay(),
    ):
        fleet.worker()
        wait_for(fleet, fleet.submit(what="fail", at=Stage.PREPARING))
        yield fleet


@pytest.fixture
def dropper(proxy: Proxy) -> Iterator[Dropper]:
    """What drops connections."""
    url = proxy.direct  # type: ignore[attr-defined]
    with redis.Redis.from_url(url) as client:
        yield Dropper(client, proxy)


@pytest.mark.parametrize("kind", KINDS)
def test_no_job_waits_beside_an_idle_worker(service: Fleet, dropper: Dropper, kind: str) -> None:
    assert set(dropper.kinds) == set(KINDS)
    waits = play(service, dropper.kinds[kind], rounds=2)
    assert waits.forgotten == 0, waits


def test_without_redis_a_worker_starts_and_jobs_run(service: Fleet, proxy: Proxy) -> None:
    proxy.refuse()
    try:
        service.workers.pop().stop()
        service.worker()
        wait_for(service, service.submit(what="fail", at=Stage.PREPARING))
    finally:
        proxy.serve()


def test_a_message_cannot_break_a_job(service: Fleet) -> None:
    """Time limits, dates and commands in messages that were put there by hand."""
    job = service.submit(seconds=0.4)
    service.wait_for_stage(job, Stage.SYNTHESIZING)
    app = make_queue(service.settings)
    for options in (
        {"soft_time_limit": 1, "time_limit": 1},
        {"expires": 0.001},
        {"countdown": 3600},
    ):
        app.send_task("efface.wake", retry=False, **options)
    app.send_task("efface.run_job", args=["job_x"], retry=False)
    app.control.broadcast("shutdown")
    with Connection(service.settings.redis_url.get_secret_value()) as connection:
        connection.default_channel.client.lpush("efface:efface", "no message at all")
    ended = service.wait_for_state(job, JobState.SUCCEEDED)
    assert ended.attempt == 1
    assert wait_for(service, service.submit(what="fail", at=Stage.PREPARING)) < 60
    assert service.workers[-1].process.poll() is None


def test_the_log_names_the_job_that_runs_and_is_json_in_every_line(service: Fleet) -> None:
    failed = service.submit(what="fail", at=Stage.PREPARING)
    wait_for(service, failed)
    done = service.wait_for_state(service.submit(), JobState.SUCCEEDED).id
    wait_until(lambda: len(_ended(service, {failed, done})) == 2, "the log does not say how the jobs ended")
    by_job = {line["job_id"]: line for line in _ended(service, {failed, done})}
    assert (by_job[failed]["state"], by_job[failed]["error"]) == ("failed", "invalid_checkpoint")
    assert (by_job[done]["state"], by_job[done]["error"], by_job[done]["verdict"]) == ("succeeded", None, "passed")
    assert all(line["seconds"] >= 0 for line in by_job.values())


def _ended(service: Fleet, jobs: set[str]) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in service.workers[-1].log.read_text().splitlines()]
    return [line for line in lines if line["event"] == "job.ended" and line["job_id"] in jobs]


def test_its_row_says_what_it_works_on_and_goes_with_it(service: Fleet) -> None:
    job = service.submit(what="hang", at=Stage.PREPARING)
    service.wait_for_stage(job, Stage.PREPARING)

    def rows() -> list[processes.Seen]:
        with service.database.transaction() as session:
            return processes.seen(session, ProcessKind.WORKER)

    wait_until(lambda: [row.job_id for row in rows()] == [job], "it does not say what it works on")
    (row,) = rows()
    assert row.alive
    assert set(row.facts) == {"device", "isolation", "doorbell", "renewals"}
    assert "no core dumps" in row.facts["isolation"]
    service.cancel(job)
    service.wait_for_state(job, JobState.CANCELLED)
    wait_until(lambda: [row.job_id for row in rows()] == [None], "it does not say that it is idle")
    service.workers.pop().stop()
    assert rows() == []
    service.worker()
