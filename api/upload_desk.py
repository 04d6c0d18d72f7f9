"""What all uploads of one gateway share: turns, threads, inspectors, and the room in the
temporary folder.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from anyio import CapacityLimiter

from api.turns import Turns
from services.access import quotas
from shared.errors import Unavailable
from shared.files.inspection import Inspectors
from shared.settings import MIB, Settings

RETRY_SECONDS = 15
DISK_THREADS = 4
"""They write what is received; each is needed for a moment only."""
SPARE_BYTES = 256 * MIB
"""What is left free in the temporary folder, for everybody else who writes there."""


class Share:
    """The part of the temporary folder that one upload takes."""

    def __init__(self, scratch: "Scratch", promised: int) -> None:
        self._scratch = scratch
        self.held, self.written = promised, 0

    def write(self, size: int) -> None:
        """Note that `size` bytes are about to be written.

        Raises:
            Unavailable: there is no room for them.
        """
        more = max(0, self.written + size - self.held)
        if more:
            self._scratch.check(more)
        self.held += more
        self.written += size

    def hold_spare(self, most: int) -> int:
        """Hold more, half of what is free and not more than `most`; return how many bytes that
        is.
        """
        spare = min(most, max(0, self._scratch.free() // 2))
        self.held += spare
        return spare


class Scratch:
    """The room in the temporary folder, for uploads together. For one event loop."""

    def __init__(self, most: int | None) -> None:
        """Allow `most` bytes; None: what the disk has free."""
        self._most = most
        self._shares: set[Share] = set()

    @contextmanager
    def share(self, promised: int) -> Iterator[Share]:
        """Hold `promised` bytes, and whatever is written besides, until the block ends.

        Raises:
            Unavailable: there is no room for them.
        """
        self.check(promised)
        share = Share(self, promised)
        self._shares.add(share)
        try:
            yield share
        finally:
            self._shares.discard(share)

    def check(self, size: int) -> None:
        """Make sure that there is room for `size` bytes more.

        Raises:
            Unavailable: there is none.
        """
        if size > self.free():
            raise Unavailable(
                "There is no room for this upload while others are under way; send it again "
                "in a "
                "while."
            )

    def free(self) -> int:
        """Return how many bytes nobody holds."""
        to_come = sum(share.held - share.written for share in self._shares)
        free = shutil.disk_usage(tempfile.gettempdir()).free - SPARE_BYTES - to_come
        if self._most is None:
            return free
        return min(free, self._most - sum(share.held for share in self._shares))


class UploadDesk:
    """Opened with the application, closed with it."""

    def __init__(self, settings: Settings) -> None:
        self.turns = Turns(
            quotas.UPLOADS,
            total=settings.max_uploads,
            per_tenant=settings.max_tenant_uploads,
            wait_seconds=settings.upload_wait_seconds,
            retry_seconds=RETRY_SECONDS,
        )
        self.disk = CapacityLimiter(DISK_THREADS)
        self.scratch = Scratch(settings.max_scratch_bytes)
        self.inspectors = Inspectors(settings.inspectors)
