"""Counts requests in Redis, so that every API process sees the same count. Without Redis every request is let in."""

import math
import time
from dataclasses import dataclass

import redis
import structlog
from limits import RateLimitItemPerSecond
from limits.storage import RedisStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from shared.settings import Settings

TIMEOUT_SECONDS = 0.5
PAUSE_SECONDS = 5.0
"""After a failure Redis is left alone this long: no request waits for a time-out that another has just had."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Usage:
    """What a tenant has used of its requests."""

    allowed: bool
    limit: int
    window_seconds: int
    remaining: int
    reset_seconds: int
    """Until there is room for another request."""


class RequestLimiter:
    """A sliding window over each tenant's requests.

    Redis is where the count is kept because it may be lost: an emptied Redis begins anew, and one that is away lets
    everybody in, with a line in the log. The service's promises do not rest on it.
    """

    def __init__(self, settings: Settings) -> None:
        """Make a limiter; nothing is connected yet."""
        self._limit = settings.rate_limit_requests
        self._window = settings.rate_limit_seconds
        self._item = RateLimitItemPerSecond(max(1, self._limit), self._window)
        self._redis = redis.Redis.from_url(
            settings.redis_url.get_secret_value(),
            socket_timeout=TIMEOUT_SECONDS,
            socket_connect_timeout=TIMEOUT_SECONDS,
        )
        storage = RedisStorage("redis://", connection_pool=self._redis.connection_pool, key_prefix="efface:limits")
        self._strategy = SlidingWindowCounterRateLimiter(storage)
        self._away_until = 0.0

    def hit(self, tenant_id: str) -> Usage | None:
        """Count a request; None where there is no limit, or nobody to ask."""
        if self._limit == 0 or time.monotonic() < self._away_until:
            return None
        try:
            allowed = self._strategy.hit(self._item, tenant_id)
            stats = self._strategy.get_window_stats(self._item, tenant_id)
        except redis.RedisError as error:
            self._away_until = time.monotonic() + PAUSE_SECONDS
            log.warning("rate_limit.redis_away", error=str(error), let_in_seconds=PAUSE_SECONDS)
            return None
        reset = max(1, math.ceil(stats.reset_time - time.time()))
        return Usage(allowed, self._limit, self._window, stats.remaining if allowed else 0, reset)

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()
