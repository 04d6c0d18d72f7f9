"""A worker's own clock decides nothing: leases are counted by Postgres, and a clock that leaps only makes a worker give up.

The clock of a machine cannot be moved here. What is moved is all that the supervisor sees of it: `time.monotonic`.
"""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from pydantic import SecretStr

from services.jobs import lifecycle
from services.jobs.lifecycle import Claim
from shared.ports.embedded_servers import free_port
from shared.postgres.database import Database, make_engine
from shared.states import JobState
from tests.support.fleet import Fleet
from tests.support.world import World, passed
from worker import runner
from worker.protocol import Lines
from worker.runner import Supervisor

OWNER = "w"


class Clock:
    """The clock that the supervisor looks at; `offset` moves it, and `stopped` holds it."""

    def __init__(self) -> None:
        self.offset = 0.0
        self.stopped: float | None = None

    def monotonic(self) -> float:
        return time.monotonic() + self.offset if self.stopped is None else self.stopped

    sleep = staticmethod(time.sleep)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(runner, "time", found)
    return found


@pytest.fixture
def world(fleet: Fleet) -> World:
    return World(fleet.database, fleet.tenant_id, fleet.submit())


@pytest.fixture
def claimed(fleet: Fleet, world: World) -> Claim:
    with fleet.database.transaction() as session:
        found = lifecycle.claim(session, world.job, OWNER, fleet.settings.lease_seconds)
    assert found is not None
    return found


@pytest.fixture
def listener() -> Iterator[tuple[socket.socket, Path]]:
    """Where a child would listen."""
    with TemporaryDirectory(prefix="clock-") as folder, socket.socket(socket.AF_UNIX) as found:
        found.bind(f"{folder}/socket")
        found.listen()
        yield found, Path(folder) / "socket"


def supervised(
    fleet: Fleet, database: Database, claim: Claim, listener: tuple[socket.socket, Path], child: Callable[[Lines], None]
) -> None:
    """Run a supervisor to its end with `child` in the place of a child."""
    server, path = listener
    supervisor = Supervisor(claim, OWNER, database, fleet.settings, threading.Event(), lambda: None)
    thread = threading.Thread(target=supervisor.run, args=(path,))
    thread.start()
    connection, _ = server.accept()
    child(Lines(connection))
    thread.join(60)
    connection.close()
    assert not thread.is_alive()


def alive(lines: Lines) -> None:
    """Wait until the supervisor has renewed its lease."""
    while not any(message["type"] == "alive" for message in lines.receive(30) or ()):
        pass


def ends(world: World, lines: Lines) -> None:
    """Report that the run has passed."""
    lines.send({"type": "result", "result": passed(world, 1).model_dump(mode="json")})


def test_a_clock_that_leaps_ahead_loses_nothing_while_postgres_answers(fleet, world, claimed, listener, clock) -> None:
    def child(lines: Lines) -> None:
        clock.offset = 10 * fleet.settings.lease_seconds
        alive(lines)
        ends(world, lines)

    supervised(fleet, fleet.database, claimed, listener, child)
    assert world.view().state is JobState.SUCCEEDED


def test_a_clock_that_leaps_ahead_while_postgres_is_silent_makes_it_give_up(
    fleet, world, claimed, listener, clock
) -> None:
    nowhere = f"postgresql://postgres@127.0.0.1:{free_port()}/efface"
    silent = make_engine(fleet.settings.model_copy(update={"database_url": SecretStr(nowhere)}))

    def child(lines: Lines) -> None:
        clock.offset = 10 * fleet.settings.lease_seconds
        while lines.receive(30) is not None:
            pass  # it hangs up

    supervised(fleet, Database(silent), claimed, listener, child)
    silent.dispose()
    assert world.view().state is JobState.RUNNING  # until Postgres, too, finds that the lease is over
    world.expire()
    assert world.take_back() == 1


def test_a_clock_that_stands_still_keeps_no_job(fleet, world, claimed, listener, clock) -> None:
    def child(lines: Lines) -> None:
        clock.stopped = time.monotonic()
        world.expire()
        assert world.claim() is not None  # another worker, by the clock of Postgres
        ends(world, lines)

    supervised(fleet, fleet.database, claimed, listener, child)
    job = world.view()
    assert (job.state, job.attempt, job.result_model) == (JobState.RUNNING, 2, None)
