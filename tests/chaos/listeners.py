"""Whoever listens: event streams that are held open over everything, and go on where they were with `Last-Event-ID`."""

import json
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

import httpx

from tests.chaos.fairness import FINAL

PAUSE_SECONDS = 0.2
LEFT_SECONDS = 120.0
"""How long listeners may take to hear the rest when the storm is over."""
STREAM_TIMEOUT = httpx.Timeout(40.0, connect=5.0)

Heard = list[tuple[int, str]]
"""The events of one job as they came: seq and type."""


class End(StrEnum):
    """How one connection ended."""

    AWAY = "away"
    """There was none: ask again."""
    BROKEN = "broken"
    """It ended: go on with another one."""
    TOLD = "told"
    """The service says that everything was told."""
    KEY = "key"
    """The key is not good, or no longer."""


def messages(response: httpx.Response) -> Iterator[dict[str, str]]:
    """Yield the whole messages of an event stream; what a cut has left of the last one is none."""
    message: dict[str, str] = {}
    for line in response.iter_lines():
        if line:
            name, _, value = line.partition(":")
            message[name] = value.strip()
            continue
        if "id" in message:
            yield message
        message = {}


def hear(client: httpx.Client, job_id: str, key: str, heard: Heard) -> End:
    """Listen to a job on one connection, from where the last one ended, and append what comes."""
    end = End.AWAY
    headers = {"Accept": "text/event-stream", "Authorization": f"Bearer {key}"}
    if heard:
        headers["Last-Event-ID"] = str(heard[-1][0])
    try:
        with client.stream("GET", f"/jobs/{job_id}/events", headers=headers) as response:
            if response.status_code == httpx.codes.NO_CONTENT:
                return End.TOLD
            if response.status_code == httpx.codes.UNAUTHORIZED:
                return End.KEY
            if response.status_code != httpx.codes.OK:
                return End.AWAY
            end = End.BROKEN
            for message in messages(response):
                event = json.loads(message["data"])
                same = (str(event["seq"]), event["type"]) == (message["id"], message["event"])
                heard.append((int(message["id"]), message["event"] if same else f"not the {event}"))
    except httpx.TransportError:
        pass
    return end


class Listeners:
    """Listeners who follow jobs to the end, one after another, so many at a time."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=STREAM_TIMEOUT)
        self._jobs: queue.Queue[tuple[str, str] | None] = queue.Queue()
        self._lock = threading.Lock()
        self._known: set[str] = set()
        self._give_up = threading.Event()
        self._left = 0
        self.heard: dict[str, Heard] = {}
        """Of each job that was followed to its end."""
        self.resumed = 0
        """How often a stream broke off before the end of its job."""

    def follow(self, job_id: str, key: str) -> None:
        """Have a job followed."""
        with self._lock:
            if job_id not in self._known:
                self._known.add(job_id)
                self._left += 1
                self._jobs.put((job_id, key))

    def done(self) -> bool:
        """True once every job was followed to its end."""
        return self._left == 0

    @contextmanager
    def listening(self, listeners: int) -> Iterator[None]:
        """Listen while the block lasts, and a while longer."""
        threads = [threading.Thread(target=self._listen, daemon=True) for _ in range(listeners)]
        for thread in threads:
            thread.start()
        yield
        for _ in threads:
            self._jobs.put(None)
        end = time.monotonic() + LEFT_SECONDS
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))
        self._give_up.set()
        self._client.close()

    def _listen(self) -> None:
        while (wanted := self._jobs.get()) is not None and not self._give_up.is_set():
            heard: Heard = []
            while (end := hear(self._client, *wanted, heard)) in (End.AWAY, End.BROKEN):
                with self._lock:
                    self.resumed += end is End.BROKEN and (not heard or heard[-1][1] not in FINAL)
                if self._give_up.wait(PAUSE_SECONDS):
                    break
            with self._lock:
                self._left -= 1
                if end is End.TOLD:
                    self.heard[wanted[0]] = heard


def gaps(heard: Heard | None, happened: Heard) -> bool:
    """Return True where what was heard is not what happened, each event once and in order."""
    return heard is None or heard != happened
