"""Turns: a few at a time in all, fewer of one tenant, and a bounded wait. What takes long must
not take what others need.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from anyio import CapacityLimiter, to_thread

from shared.errors import QuotaExceeded

T = TypeVar("T")

MAX_WAITING = 64
"""As many of one tenant as may wait; the next one is refused at once."""


@dataclass(slots=True)
class _Tenant:
    turns: asyncio.Semaphore
    present: int = 0
    """That have a turn or wait for one."""


class Turns:
    """Who may do something now, in this process. For one event loop."""

    def __init__(
        self, policy: str, *, total: int, per_tenant: int, wait_seconds: float, retry_seconds: int
    ) -> None:
        """Allow `total` at a time and `per_tenant` of one tenant; `policy` is the limit's name."""
        self._policy, self._per_tenant = policy, per_tenant
        self._wait_seconds, self._retry_seconds = wait_seconds, retry_seconds
        self._total = total
        self._all = asyncio.Semaphore(total)
        self._tenants: dict[str, _Tenant] = {}
        self.threads = CapacityLimiter(total)
        """For what has a turn: none of the threads that everybody shares."""

    @asynccontextmanager
    async def taken(self, tenant_id: str) -> AsyncIterator[None]:
        """Wait for a turn, first come, first served, and hold it.

        Raises:
            QuotaExceeded: it did not come in time, or too many wait already.
        """
        tenant = self._tenants.setdefault(tenant_id, _Tenant(asyncio.Semaphore(self._per_tenant)))
        if tenant.present >= self._per_tenant + MAX_WAITING:
            raise self._refusal()
        tenant.present += 1
        try:
            async with AsyncExitStack() as held:
                try:
                    async with asyncio.timeout(self._wait_seconds):
                        await held.enter_async_context(tenant.turns)
                        await held.enter_async_context(self._all)
                except TimeoutError:
                    raise self._refusal() from None
                yield
        finally:
            tenant.present -= 1
            if tenant.present == 0:
                del self._tenants[tenant_id]

    async def run(self, tenant_id: str, function: Callable[..., T], *arguments: object) -> T:
        """Call a function that waits, in a thread of its own kind, when the turn has come."""
        async with self.taken(tenant_id):
            return await to_thread.run_sync(partial(function, *arguments), limiter=self.threads)

    def _refusal(self) -> QuotaExceeded:
        return QuotaExceeded(
            f"There are {self._per_tenant} {self._policy} of your tenant under way at this "
            f"gateway, or {self._total} in all,"
            " which is the limit; try again later.",
            policy=self._policy,
            retry_seconds=self._retry_seconds,
        )
