"""Counts each tenant's requests, and tells clients how they stand
(draft-ietf-httpapi-ratelimit-headers-10).
"""

from collections.abc import Iterator
from typing import cast

import http_sf
from fastapi import Request
from http_sf import StructuredType

from api.parts import parts_of
from services.access import quotas
from shared.ports.rate_limiter import Usage
from shared.settings import Settings


def check(request: Request, usage: Usage | None) -> None:
    """Refuse a request over its tenant's limit, and remember for its answer how the tenant stands.

    Raises:
        QuotaExceeded: the tenant has sent too many.
    """
    request.state.usage = usage
    quotas.check_requests(usage)


def headers(request: Request) -> Iterator[tuple[bytes, bytes]]:
    """Yield the headers of a request that was counted; without Redis the policy is there, but no
    count.
    """
    if not hasattr(request.state, "usage"):
        return
    settings = parts_of(request).settings
    if policies := _policies(settings):
        yield b"ratelimit-policy", _serialized(policies)
    usage: Usage | None = request.state.usage
    if usage is not None:
        yield (
            b"ratelimit",
            _serialized({quotas.REQUESTS: {"r": usage.remaining, "t": usage.reset_seconds}}),
        )


def _policies(settings: Settings) -> dict[str, dict[str, object]]:
    policies: dict[str, dict[str, object]] = {}
    if settings.rate_limit_requests:
        policies[quotas.REQUESTS] = {
            "q": settings.rate_limit_requests,
            "w": settings.rate_limit_seconds,
        }
    if settings.max_unfinished_jobs:
        policies[quotas.JOBS] = {"q": settings.max_unfinished_jobs, "qu": "concurrent-requests"}
    if settings.max_streams:
        policies[quotas.STREAMS] = {"q": settings.max_streams, "qu": "concurrent-requests"}
    return policies


def _serialized(items: dict[str, dict[str, object]]) -> bytes:
    """Return a structured field: a list of strings with parameters."""
    listed = cast(StructuredType, list(items.items()))
    return http_sf.ser(listed).encode()
