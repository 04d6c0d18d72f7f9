"""A way to a server that fails as networks and servers do: on the wire, so that nobody's code is replaced."""

import asyncio
import threading
from asyncio import StreamReader, StreamWriter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from urllib.parse import urlsplit

CHUNK_BYTES = 1 << 16
_DENIAL = b"<Error><Code>AccessDenied</Code><Message>The storm says no.</Message></Error>"
DENIED = (
    b"HTTP/1.1 403 Forbidden\r\nContent-Type: application/xml\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_DENIAL), _DENIAL)
)


class Weather(StrEnum):
    """What becomes of a request. A client does not try again what is denied, so the service itself must."""

    FAIR = "fair"
    REFUSING = "refusing"
    """It is denied, and the server never hears of it."""
    CUT = "cut"
    """The connection is reset."""
    SLOW = "slow"
    AFTERWARDS = "failing afterwards"
    """The server does it, and the client is told that it was denied."""


class Way:
    """The way, and its weather, which may change at any time."""

    def __init__(self, target: str, slow_seconds: float = 0.3) -> None:
        place = urlsplit(target)
        self._host, self._port = place.hostname or "", place.port or 80
        self._slow_seconds = slow_seconds
        self.weather = Weather.FAIR
        self.url = ""

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Carry one connection until either side ends it, or the weather does."""
        there, back = await asyncio.open_connection(self._host, self._port)
        both = [asyncio.create_task(self._ask(reader, back, writer)), asyncio.create_task(self._answer(there, writer))]
        with suppress(asyncio.CancelledError):
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        for task in both:
            task.cancel()
        await asyncio.gather(*both, return_exceptions=True)
        for end in (writer, back):
            end.close()

    async def _ask(self, reader: StreamReader, back: StreamWriter, writer: StreamWriter) -> None:
        while data := await reader.read(CHUNK_BYTES):
            if self.weather is Weather.REFUSING:
                return await _deny(writer)
            if self.weather is Weather.CUT:
                return writer.transport.abort()
            if self.weather is Weather.SLOW:
                await asyncio.sleep(self._slow_seconds)
            back.write(data)
            await back.drain()
        return None

    async def _answer(self, there: StreamReader, writer: StreamWriter) -> None:
        while data := await there.read(CHUNK_BYTES):
            if self.weather is Weather.AFTERWARDS:
                return await _deny(writer)
            if self.weather is Weather.CUT:
                return writer.transport.abort()
            writer.write(data)
            await writer.drain()
        return None


async def _deny(writer: StreamWriter) -> None:
    writer.write(DENIED)
    await writer.drain()


@contextmanager
def flaky(target: str) -> Iterator[Way]:
    """Run a way to the server at the URL `target` on a free port of loopback."""
    way = Way(target)
    loop = asyncio.new_event_loop()

    async def start() -> None:
        server = await asyncio.start_server(way.serve, "127.0.0.1", 0)
        way.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield way
    finally:
        for task in asyncio.all_tasks(loop):
            loop.call_soon_threadsafe(task.cancel)
        loop.call_soon_threadsafe(loop.call_later, 0.1, loop.stop)
        thread.join(5)
        with suppress(RuntimeError):
            loop.close()
