"""Ways in which a worker loses its connection to Redis, and what its jobs then wait for."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

import psutil
import redis

from shared.states import JobState
from tests.support.fleet import Fleet

PATIENCE_SECONDS = 10.0
"""A job that waits for longer beside an idle worker was forgotten."""


class Proxy:
    """A way to Redis over TCP that can be cut, or go silent with its connections open: what is sent then is never answered."""

    def __init__(self, url: str) -> None:
        place = urlsplit(url)
        self._target = (place.hostname or "127.0.0.1", place.port or 6379)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = url.replace(f":{self._target[1]}/", f":{self._listener.getsockname()[1]}/")
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._open = threading.Event()
        self._open.set()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Close every connection."""
        pairs, self._pairs = self._pairs, []
        for end in (end for pair in pairs for end in pair):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def silence(self) -> None:
        """Let nothing through on the connections that are there; new ones are served."""
        self._pairs, pairs = [], self._pairs
        for _, far in pairs:  # the near end stays open, and hears nothing any more
            with suppress(OSError):
                far.shutdown(socket.SHUT_RDWR)

    def refuse(self) -> None:
        """Take no new connection, and cut those that are there."""
        self._open.clear()
        self.cut()

    def serve(self) -> None:
        """Take connections again."""
        self._open.set()

    def close(self) -> None:
        """Close everything."""
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                if not self._open.is_set():
                    near.close()
                    continue
                try:
                    far = socket.create_connection(self._target)
                except OSError:
                    near.close()
                    continue
                self._pairs.append((near, far))
                threading.Thread(target=self._carry, args=(near, far), daemon=True).start()
                threading.Thread(target=self._carry, args=(far, near, (near, far)), daemon=True).start()

    def _carry(
        self, source: socket.socket, sink: socket.socket, pair: tuple[socket.socket, socket.socket] | None = None
    ) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
        if pair is None or pair in self._pairs:  # else the way went silent, and its near end must not learn it
            for end in (source, sink):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)


@contextmanager
def proxied(url: str) -> Iterator[Proxy]:
    """Run a way to the Redis of this URL while the block lasts."""
    proxy = Proxy(url)
    try:
        yield proxy
    finally:
        proxy.close()


class Dropper:
    """Drops the connections of everybody in one of several ways."""

    def __init__(self, client: redis.Redis, proxy: Proxy) -> None:
        """Make one. `client` speaks to Redis directly, which runs on this machine; everybody else comes by `proxy`."""
        self._client, self._proxy = client, proxy
        self.kinds: dict[str, Callable[[], None]] = {
            "CLIENT KILL, once": lambda: self._kill(1),
            "CLIENT KILL, five times in two seconds": lambda: self._kill(5),
            "CLIENT KILL of BRPOP": self._kill_waiting,
            "CLIENT KILL between two BRPOPs": self._kill_idle,
            "connections cut by a proxy": proxy.cut,
            "half-open connections": proxy.silence,
            "Redis stopped for three seconds": self._stop,
            "failover to an empty Redis": self._fail_over,
            "Redis away for four seconds": self._away,
        }

    def _kill(self, times: int) -> None:
        for number in range(times):
            if number:
                time.sleep(0.4)
            self._client.client_kill_filter(_type="normal", skipme=True)

    def _kill_waiting(self) -> None:
        for one in self._client.client_list():
            if one["cmd"] == "brpop":
                self._client.client_kill_filter(_id=one["id"])

    def _kill_idle(self) -> None:
        """Kill each connection in the moment in which it is not blocked."""
        end = time.monotonic() + 3.0
        own = self._client.client_id()
        killed: set[str] = set()
        while time.monotonic() < end:
            for one in self._client.client_list():
                if "b" not in one["flags"] and int(one["id"]) != own and one["id"] not in killed:
                    self._client.client_kill_filter(_id=one["id"])
                    killed.add(one["id"])

    def _stop(self) -> None:
        server = psutil.Process(self._client.info("server")["process_id"])
        server.suspend()
        time.sleep(3.0)
        server.resume()

    def _fail_over(self) -> None:
        """As when an empty replica takes over: everybody is cut off, and nothing is there any more."""
        self._proxy.refuse()
        self._client.flushall()
        time.sleep(0.5)
        self._proxy.serve()

    def _away(self) -> None:
        self._proxy.refuse()
        time.sleep(4.0)
        self._proxy.serve()


@dataclass(slots=True)
class Waits:
    """How long jobs waited beside an idle worker, in seconds."""

    rounds: int = 0
    forgotten: int = 0
    longest: float = 0.0


def wait_for(fleet: Fleet, job_id: str) -> float:
    """Wait until a job has ended; return how many seconds it waited for a worker."""
    deadline = time.monotonic() + 600.0
    while not fleet.job(job_id).state.final:
        if time.monotonic() > deadline:
            raise AssertionError(f"{job_id} has not ended in ten minutes")
        time.sleep(0.1)
    job = fleet.job(job_id)
    assert job.state is JobState.FAILED, job
    assert job.started_at is not None
    return (job.started_at - job.created_at).total_seconds()


def play(fleet: Fleet, drop: Callable[[], None], rounds: int, pause: float = 0.5) -> Waits:
    """Drop connections beside an idle worker, submit a job, and take down how long it waited: so many times."""
    waits = Waits()
    for _ in range(rounds):
        drop()
        time.sleep(pause)
        seconds = wait_for(fleet, fleet.submit(what="fail", at="preparing"))
        waits.rounds += 1
        waits.forgotten += seconds > PATIENCE_SECONDS
        waits.longest = max(waits.longest, seconds)
    return waits
