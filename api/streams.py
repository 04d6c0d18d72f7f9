"""Live events for any number of listeners: a gateway watches Postgres once, not once for each of
them.

Postgres calls when an event is committed (`NOTIFY`), and then each job that somebody listens to
is read once. A stream that nothing happens on costs no statement. It ends with the key or token
that opened it, and after `stream_seconds`: clients go on with Last-Event-ID."""

import asyncio
import math
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
import structlog
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.concurrency import run_in_threadpool

from services.access import access_tokens
from services.access.quotas import check_streams
from services.jobs import queries
from services.jobs.queries import Look
from shared.postgres.database import EVENTS_CHANNEL, Database
from shared.schemas.job import EventView
from shared.settings import Settings

BATCH = 100
"""Events that one look reads."""
KEPT = 500
"""Events of a job that are kept for its listeners; one that is further behind reads for itself."""
CHECK_SECONDS = 2.0
"""How often it is looked whether the keys of all streams are still good: one statement for all
of them.
"""
RETRY_SECONDS = 2.0
"""A stream whose look at Postgres failed looks again after this, or when the gateway listens to
Postgres anew.
"""
AWAY = (OperationalError, InterfaceError, PoolTimeoutError)
LONGEST_PAUSE_SECONDS = 10.0
KEEPALIVE: dict[str, Any] = {"keepalives_idle": 15, "keepalives_interval": 5, "keepalives_count": 3}

log = structlog.get_logger()


class Stream:
    """One client that listens to one job."""

    def __init__(self, feed: "_Feed", credential: str, seconds: float) -> None:
        self.credential = credential
        self._feed = feed
        self._ends_at = time.monotonic() + seconds
        self._cut = False
        self._news = asyncio.Event()

    def wake(self) -> None:
        """Say that there may be news."""
        self._news.set()

    def cut(self) -> None:
        """End the stream."""
        self._cut = True
        self._news.set()

    async def events(self, after: int) -> AsyncIterator[EventView]:
        """Yield the job's events after a seq, those that are there and those that come, until
        the job or the stream ends.
        """
        while True:
            self._news.clear()
            try:
                look = await self._feed.after(after)
            except AWAY as error:
                log.debug("streams.look_failed", error=str(error), retry_seconds=RETRY_SECONDS)
                if not await self._wait(RETRY_SECONDS):
                    return
                continue
            for event in look.events:
                yield event
                after = event.seq
            if look.has_more and not self._cut:
                continue
            if look.ended or self._cut or not await self._wait():
                return

    async def _wait(self, longest: float = math.inf) -> bool:
        """Wait for news, for `longest` seconds at most; False at the end of the stream."""
        with suppress(TimeoutError):
            await asyncio.wait_for(
                self._news.wait(), max(0.0, min(longest, self._ends_at - time.monotonic()))
            )
        return not self._cut and time.monotonic() < self._ends_at


class _Feed:
    """The newest events of one job, read once for all who listen to it."""

    def __init__(self, database: Database, tenant_id: str, job_id: str) -> None:
        self.streams: set[Stream] = set()
        self._database, self._tenant_id, self._job_id = database, tenant_id, job_id
        self._events: deque[EventView] = deque(maxlen=KEPT)
        self._since: int | None = None
        """What is kept is all that came after this seq."""
        self._ended = False
        self._stale = True
        self._turn = asyncio.Lock()

    def wake(self) -> None:
        """Have the next one who looks read the database, and everybody look."""
        self._stale = True
        for stream in self.streams:
            stream.wake()

    async def after(self, seq: int) -> Look:
        """Return what came after a seq."""
        async with self._turn:
            if self._since is None:
                self._since = seq
            if self._stale:
                await self._refresh()
        if seq < self._since:
            look = await self._look(seq)
            newest = look.events[-1].seq if look.events else seq
            if not look.has_more and not self._events:  # who came first named a seq that never was
                self._since = min(self._since, newest)
            return look
        return Look(
            tuple(event for event in self._events if event.seq > seq),
            has_more=False,
            ended=self._ended,
        )

    async def _refresh(self) -> None:
        more = True
        while more:
            self._stale = False  # before the look: what is committed after it calls again
            last = self._events[-1].seq if self._events else self._since or 0
            try:
                look = await self._look(last)
            except BaseException:
                self._stale = True  # whoever looks next reads what this one could not
                raise
            if len(self._events) + len(look.events) > KEPT:
                self._since = (*self._events, *look.events)[-KEPT].seq - 1
            self._events.extend(look.events)
            self._ended, more = look.ended, look.has_more

    async def _look(self, seq: int) -> Look:
        return await run_in_threadpool(self._read, seq)

    def _read(self, seq: int) -> Look:
        """Read in a short transaction: a stream may live for an hour and must not hold a
        connection.
        """
        with self._database.transaction() as session:
            return queries.look(session, self._tenant_id, self._job_id, after=seq, limit=BATCH)


class Streams:
    """All streams of one gateway."""

    def __init__(self, database: Database, settings: Settings) -> None:
        """Make it; nothing is connected before the first stream."""
        self._database, self._settings = database, settings
        self._feeds: dict[str, _Feed] = {}
        self._of_tenant: Counter[str] = Counter()
        self._tasks: list[asyncio.Task[None]] = []

    @contextmanager
    def opened(self, tenant_id: str, job_id: str, credential: str) -> Iterator[Stream]:
        """Give a stream of a job of the tenant's; `credential` is the digest of the key or token
        that asks for it.

        Raises:
            QuotaExceeded: the tenant has as many as it may.
        """
        check_streams(self._of_tenant[tenant_id], self._settings.max_streams)
        self._watch()
        feed = self._feeds.setdefault(job_id, _Feed(self._database, tenant_id, job_id))
        stream = Stream(feed, credential, self._settings.stream_seconds)
        feed.streams.add(stream)
        self._of_tenant[tenant_id] += 1
        try:
            yield stream
        finally:
            self._of_tenant -= Counter([tenant_id])
            feed.streams.discard(stream)
            if not feed.streams:
                self._feeds.pop(job_id, None)

    async def close(self) -> None:
        """End everything."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _watch(self) -> None:
        if not self._tasks:
            self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._check())]

    async def _listen(self) -> None:
        """Wake those whose job Postgres calls for; all of them after a time without a
        connection.
        """
        url = self._settings.sqlalchemy_url().replace("postgresql+psycopg://", "postgresql://")
        pause = 0.1
        while True:
            try:
                connection = await psycopg.AsyncConnection.connect(
                    url, autocommit=True, connect_timeout=5, application_name="efface", **KEEPALIVE
                )
                async with connection:
                    await connection.execute(f"LISTEN {EVENTS_CHANNEL}")
                    pause = 0.1
                    self._wake_all()
                    async for notice in connection.notifies():
                        if feed := self._feeds.get(notice.payload):
                            feed.wake()
            except (psycopg.Error, OSError) as error:
                log.warning("streams.postgres_away", error=str(error), retry_seconds=pause)
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def _wake_all(self) -> None:
        for feed in self._feeds.values():
            feed.wake()

    async def _check(self) -> None:
        """End the streams whose key was revoked or has expired, or whose token has."""
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            streams = [stream for feed in self._feeds.values() for stream in feed.streams]
            if not streams:
                continue
            try:
                good = await run_in_threadpool(
                    self._good, {stream.credential for stream in streams}
                )
            except SQLAlchemyError as error:
                log.warning("streams.keys_unchecked", error=str(error))
                continue
            for stream in streams:
                if stream.credential not in good:
                    stream.cut()

    def _good(self, credentials: set[str]) -> set[str]:
        with self._database.look() as connection:
            return access_tokens.good(connection, credentials)
