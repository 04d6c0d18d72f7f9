"""Counts requests in Redis, so that every API process sees the same count. Without Redis every
request is let in.
"""

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
"""After a failure Redis is left alone this long: no request waits for a time-out that another
has just had.
"""
LONGEST_WINDOWS = 2
"""A window lives for twice its length at most, as the current one and as the one before."""

log = structlog.get_logger()


_MISSING = -2
"""What Redis says of the time to live of a key that is not there."""


class _Broken(Exception):
    """What lies in Redis under a tenant's name is no window."""


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

    Redis is where the count is kept because it may be lost: an emptied Redis begins anew, and
    one that is away lets everybody in, with a line in the log. The service's promises do not
    rest on it. What lies there under a tenant's name and is no window of ours (it never ends, or
    is no number) counts as lost, and concerns that tenant alone."""

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
        storage = RedisStorage(
            "redis://", connection_pool=self._redis.connection_pool, key_prefix="efface:limits"
        )
        self._storage, self._strategy = storage, SlidingWindowCounterRateLimiter(storage)
        self._away_until = 0.0
        self._paused_until: dict[str, float] = {}
        """By tenant: its windows could not be mended a moment ago."""

    def hit(self, tenant_id: str) -> Usage | None:
        """Count a request; None where there is no limit, or nobody to ask."""
        now = time.monotonic()
        if self._limit == 0 or now < max(self._away_until, self._paused_until.get(tenant_id, 0.0)):
            return None
        try:
            return self._mended(tenant_id)
        except redis.RedisError as error:
            self._away_until = now + PAUSE_SECONDS
            log.warning("rate_limit.redis_away", error=str(error), let_in_seconds=PAUSE_SECONDS)
        except _Broken as error:
            self._paused_until = {
                tenant: end for tenant, end in self._paused_until.items() if end > now
            }
            self._paused_until[tenant_id] = now + PAUSE_SECONDS
            log.warning(
                "rate_limit.broken",
                tenant_id=tenant_id,
                error=str(error),
                let_in_seconds=PAUSE_SECONDS,
            )
        return None

    def _mended(self, tenant_id: str) -> Usage:
        """Count a request; where what lies in Redis is no window, drop it and begin anew.

        Raises:
            _Broken: that did not help.
        """
        try:
            usage = self._counted(tenant_id)
            if usage.allowed or self._ends(tenant_id):
                return usage
            why = "it never ends"
        except _Broken as error:
            why = str(error)
        log.warning("rate_limit.window_lost", tenant_id=tenant_id, error=why)
        self._strategy.clear(self._item, tenant_id)
        return self._counted(tenant_id)

    def _counted(self, tenant_id: str) -> Usage:
        try:
            allowed = self._strategy.hit(self._item, tenant_id)
            stats = self._strategy.get_window_stats(self._item, tenant_id)
        except (redis.ResponseError, ValueError, TypeError) as error:  # another type, or no number
            raise _Broken(error) from error
        reset = max(1, math.ceil(stats.reset_time - time.time()))
        return Usage(
            allowed,
            self._limit,
            self._window,
            min(self._limit, stats.remaining) if allowed else 0,
            reset,
        )

    def _ends(self, tenant_id: str) -> bool:
        """Return whether the windows that stop a tenant end when windows of ours do. One without
        a time to live never does.
        """
        longest = LONGEST_WINDOWS * self._window * 1000
        current = self._storage.prefixed_key(f"{{{self._item.key_for(tenant_id)}}}")
        lives = [int(self._redis.pttl(key)) for key in (current, f"{current}/-1")]
        return all(life == _MISSING or 0 <= life <= longest for life in lives)

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()
