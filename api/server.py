"""The HTTP server: uvicorn, with limits on what a client may hold of it without having asked for
anything.
"""

import asyncio

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from shared.settings import Settings

HEAD_SECONDS = 20.0
"""How long the head of a request may take to come."""
HEAD_BYTES = 64 * 1024
KEEP_ALIVE_SECONDS = 5
SHUTDOWN_SECONDS = 10


def serve(app: ASGIApp, settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT."""
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.port,
        http=TimedProtocol,
        log_config=None,  # ours
        access_log=False,  # `Boundary` writes one
        server_header=False,
        h11_max_incomplete_event_size=HEAD_BYTES,
        limit_concurrency=settings.max_connections,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )


class TimedProtocol(H11Protocol):
    """uvicorn's own, which limits the pause between two requests, and not how long the head of
    one may take.
    """

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Begin to wait for the first head."""
        super().connection_made(transport)
        self._time_head(waiting=True)

    def data_received(self, data: bytes) -> None:
        """Wait on while a head is incomplete."""
        super().data_received(data)
        self._time_head(waiting=self._head_has_begun())

    def on_response_complete(self) -> None:
        """Wait for the next head, if it has begun to come already."""
        super().on_response_complete()
        self._time_head(waiting=self._head_has_begun())

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._time_head(waiting=False)
        super().connection_lost(exc)

    def _head_has_begun(self) -> bool:
        return self.conn.their_state is h11.IDLE and bool(self.conn.trailing_data[0])

    def _time_head(self, *, waiting: bool) -> None:
        if not waiting and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        elif waiting and self._timer is None:
            self._timer = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def _give_up(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()
