"""An answer that is kept for a moment and looked for once, however many ask."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Remembered(Generic[T]):
    """The last answer. For one event loop."""

    def __init__(self, seconds: float) -> None:
        """Keep an answer for this long."""
        self._seconds = seconds
        self._lock = asyncio.Lock()
        self._kept: tuple[float, T] | None = None

    async def get(self, look: Callable[[], Awaitable[T]]) -> T:
        """Return the answer, from `look` where it is too old; who comes meanwhile waits for the
        same one.
        """
        async with self._lock:
            if self._kept is None or time.monotonic() >= self._kept[0]:
                answer = await look()
                self._kept = (time.monotonic() + self._seconds, answer)
            return self._kept[1]
