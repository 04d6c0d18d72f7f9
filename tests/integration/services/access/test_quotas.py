"""What one tenant may ask of the service."""

import threading
from collections.abc import Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis
from pydantic import SecretStr
from sqlalchemy import func, select
from structlog.testing import capture_logs

from services.access import quotas
from services.jobs import lifecycle, submission
from shared.errors import QuotaExceeded
from shared.ports.embedded_servers import free_port
from shared.ports.rate_limiter import RequestLimiter
from shared.postgres.database import Database
from shared.postgres.tables import Job
from shared.settings import Settings
from tests.support import parts, requests

THREADS = 8


@pytest.fixture
def limited(settings: Settings) -> Settings:
    """Three requests a minute, two unfinished jobs."""
    return settings.model_copy(update={"rate_limit_requests": 3, "max_unfinished_jobs": 2})


@pytest.fixture
def submit_limited(database: Database, tenant: str, limited: Settings, clip: Path) -> Callable[..., str]:
    """Submits a job under these limits, in a transaction of its own."""

    def submit(of: str = tenant) -> str:
        with database.transaction() as session:
            return submission.submit(session, of, requests.names_only(clip), limited).id

    return submit


def test_jobs_over_the_limit_wait_for_one_to_end(
    submit_limited: Callable[..., str], database: Database, tenant: str, stranger: str
) -> None:
    first, _ = submit_limited(), submit_limited()
    with database.transaction() as session:
        lifecycle.claim(session, first, "w", 60)  # running counts as much as queued
    with pytest.raises(QuotaExceeded, match="2 unfinished jobs") as caught:
        submit_limited()
    assert (caught.value.policy, caught.value.retry_seconds) == (quotas.JOBS, quotas.JOBS_RETRY_SECONDS)
    submit_limited(of=stranger)
    with database.transaction() as session:
        lifecycle.confirm_cancel(session, first, 1)
    submit_limited()


def test_zero_is_no_limit(database: Database, tenant: str) -> None:
    with database.transaction() as session:
        quotas.check_jobs(session, tenant, 0)
        quotas.check_requests(None)


def test_the_limit_of_jobs_holds_when_many_come_at_once(submit_limited: Callable[..., str], database: Database) -> None:
    together = threading.Barrier(THREADS)

    def post(_: int) -> bool:
        together.wait(30)
        try:
            submit_limited()
        except QuotaExceeded:
            return False
        return True

    with ThreadPoolExecutor(THREADS) as pool:
        assert sum(pool.map(post, range(THREADS))) == 2
    with database.transaction() as session:
        assert session.scalar(select(func.count()).select_from(Job)) == 2


def test_requests_are_counted_across_processes_and_by_tenant(limited: Settings, redis_url: str) -> None:
    one, other = RequestLimiter(limited), RequestLimiter(limited)
    usages = [limiter.hit("tnt_a") for limiter in (one, other, one, other)]
    assert [(usage.allowed, usage.remaining) for usage in usages if usage] == [
        (True, 2), (True, 1), (True, 0), (False, 0)]  # fmt: skip
    assert all(usage and 0 < usage.reset_seconds <= 60 for usage in usages)
    quotas.check_requests(usages[2])
    with pytest.raises(QuotaExceeded, match="3 requests in 60 s") as caught:
        quotas.check_requests(usages[3])
    assert caught.value.policy == quotas.REQUESTS
    assert usages[3]
    assert caught.value.retry_seconds == usages[3].reset_seconds
    another = one.hit("tnt_b")
    assert another
    assert (another.allowed, another.limit, another.window_seconds, another.remaining) == (True, 3, 60, 2)


def test_an_emptied_redis_begins_anew(limited: Settings, redis_url: str) -> None:
    limiter = RequestLimiter(limited)
    for _ in range(4):
        limiter.hit("tnt_a")
    parts.flush(redis_url)
    usage = limiter.hit("tnt_a")
    assert usage
    assert usage.allowed


def test_without_redis_everybody_is_let_in_and_one_line_says_so(limited: Settings) -> None:
    away = limited.model_copy(update={"redis_url": SecretStr(f"redis://127.0.0.1:{free_port()}/0")})
    limiter = RequestLimiter(away)
    with capture_logs() as captured:
        assert [limiter.hit("tnt_a") for _ in range(5)] == [None] * 5
    lines: list[MutableMapping[str, Any]] = list(captured)
    assert [(line["event"], line["log_level"]) for line in lines] == [("rate_limit.redis_away", "warning")]


def windows(redis_url: str) -> list[bytes]:
    with redis.Redis.from_url(redis_url) as client:
        return client.keys("efface:limits*")


def test_a_count_that_never_ends_counts_as_lost(limited: Settings, redis_url: str) -> None:
    limiter = RequestLimiter(limited)
    limiter.hit("tnt_a")
    (key,) = windows(redis_url)
    for lives in ({}, {"ex": 10**7}):
        with redis.Redis.from_url(redis_url) as client:
            client.set(key, 10**9, **lives)
        usage = limiter.hit("tnt_a")
        assert usage
        assert (usage.allowed, usage.remaining) == (True, 2)
    assert [usage and usage.allowed for usage in (limiter.hit("tnt_a") for _ in range(3))] == [True, True, False]


@pytest.mark.parametrize("put", ["list", "text"])
def test_what_is_no_count_is_dropped_and_concerns_one_tenant(limited: Settings, redis_url: str, put: str) -> None:
    limiter = RequestLimiter(limited)
    limiter.hit("tnt_a")
    (key,) = windows(redis_url)
    with redis.Redis.from_url(redis_url) as client:
        client.delete(key)
        client.lpush(key, "x") if put == "list" else client.set(key, "many")
    with capture_logs() as captured:
        usages = [limiter.hit(tenant) for tenant in ("tnt_a", "tnt_b", "tnt_a")]
    assert [usage and usage.remaining for usage in usages] == [2, 2, 1]
    assert [line["event"] for line in captured] == ["rate_limit.window_lost"]


def test_no_limit_asks_no_redis(settings: Settings) -> None:
    off = settings.model_copy(update={"rate_limit_requests": 0, "redis_url": SecretStr("redis://127.0.0.1:1/0")})
    with capture_logs() as captured:
        assert RequestLimiter(off).hit("tnt_a") is None
    assert captured == []
