"""The storm: the whole service in processes of its own, jobs over HTTP, and everything that can break, broken at random.

    python -m tests.chaos.storm --jobs 200 --seed 1 --seed 2 --seed 3

Two tenants submit, nine jobs to one; each job is listened to on an event stream that is taken up again wherever it breaks
off, and the keys of some listeners are revoked. Everybody comes to Redis by a proxy that can be cut or go silent
(`tests.support.dropping`). Postgres, Redis, S3 (JuiceFS), gateway, relays and workers are real. What is not: the pipeline, which is
`tests.support.pipelines` (real stages, checkpoints, images and artifacts, no model), and the way to the S3 server, which
fails on the wire (`tests.support.flaky`). When the storm is over everything works again, and then everything is counted:
`tests.chaos.promises`.
"""

import random
import signal
import threading
import time
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest
import redis
from rich.console import Console
from rich.table import Table

import migrations
from services.access import api_keys
from services.audit_log import signed_heads
from shared.ports.embedded_servers import embedded_postgres, embedded_redis, free_port
from shared.ports.object_storage import Storage
from shared.postgres.database import Database, make_engine
from shared.settings import Settings
from shared.states import Scope
from tests.chaos import fairness, promises
from tests.chaos.customers import Customers, Tenant
from tests.chaos.idleness import IdleWatch
from tests.chaos.listeners import Listeners
from tests.chaos.promises import Promise, Witnesses, World
from tests.support import parts
from tests.support.certificates import key_folder
from tests.support.dropping import Dropper, proxied
from tests.support.flaky import Way, Weather, flaky
from tests.support.fleet import MARK, Member, Worker, marked, wait_until
from tests.support.object_server import BUCKET, object_server, variables
from tests.support.receiver import receiving

QUEUE = "efface:efface"
"""The list in Redis that holds the messages."""
TENANTS = ("large", "small")
LEASE_SECONDS = 4.0
PAUSE_SECONDS = (0.4, 1.6)
"""Between two blows."""
STREAM_SECONDS = 60.0
"""An event stream ends after this; its listener goes on with another one."""
SECONDS_A_JOB = 1.5
"""For how long a storm of many jobs may rage."""
CALM_SECONDS = 1.5
"""A server is restarted, and the storage fails, no sooner than this after the last time."""


@dataclass(frozen=True)
class Plan:
    """How much of a storm."""

    jobs: int = 200
    seed: int = 1
    workers: int = 3
    relays: int = 2
    customers: int = 4
    listeners: int = 6
    """Event streams at a time."""
    images: float = 0.3
    """The share of jobs that upload what is to be forgotten."""
    webhook: bool = True
    storm_seconds: float = 300.0
    """The blows end when every job has ended, or after this."""
    settle_seconds: float = 300.0
    """How long the service may take afterwards to finish what it owes."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was done, and what was found."""

    plan: Plan
    blows: Counter[str]
    asked: Counter[str]
    promises: tuple[Promise, ...]
    storm_seconds: float
    seconds: float

    @property
    def kept(self) -> bool:
        """True where every promise was kept."""
        return all(promise.kept for promise in self.promises)


class Crew:
    """The processes of the service. Whoever ends is followed by another."""

    def __init__(self, settings: Settings, folder: Path, temporary: Path) -> None:
        self._settings, self._folder, self._temporary = settings, folder, temporary
        self._roles: list[Callable[[], Member]] = []
        self.members: list[Member] = []
        self.past: list[Member] = []

    def join(self, role: str) -> None:
        """Start a process, and keep one in its place."""
        log = self._folder / f"{role}-{len(self._roles)}.log"
        arguments = (self._settings, log, self._temporary)
        command = ["api.cli", role]
        self._roles.append(partial(Worker, *arguments) if role == "worker" else partial(Member, command, *arguments))
        self.members.append(self._roles[-1]())

    def tend(self) -> None:
        """Put another process in the place of each that has ended."""
        for number, member in enumerate(self.members):
            if member.process.poll() is not None:
                self.past.append(member)
                self.members[number] = self._roles[number]()

    def role(self, role: str) -> list[Member]:
        """Return the processes of a role."""
        return [member for member in self.members if member.log.name.startswith(role)]

    def workers(self) -> list[Worker]:
        """Return the workers."""
        return [member for member in self.members if isinstance(member, Worker)]

    def stop(self) -> None:
        """Ask everybody to end."""
        for member in self.members:
            member.signal_all(signal.SIGCONT)
            with suppress(psutil.NoSuchProcess):
                member.process.terminate()
        for member in self.members:
            member.process.wait(60)

    def living(self) -> set[int]:
        """Return the pids of the workers that have not ended."""
        return {worker.process.pid for worker in self.workers() if worker.process.poll() is None}

    def left(self) -> list[psutil.Process]:
        """Return every process that lives of anybody who ever joined."""
        return marked({member.mark for member in (*self.members, *self.past)})

    def kill(self) -> None:
        """Leave nothing behind, whatever happened."""
        for process in self.left():
            with suppress(psutil.NoSuchProcess):
                process.kill()


class Storm:
    """The blows. They are dealt by the thread that started the servers, for the kernel ends a server with its thread."""

    def __init__(
        self,
        chance: random.Random,
        crew: Crew,
        way: Way,
        servers: dict[str, parts.Restartable],
        queue: "redis.Redis[bytes]",
        dropper: Dropper,
    ) -> None:
        self._chance, self._crew, self._way, self._servers, self._queue = chance, crew, way, servers, queue
        self._thaws: list[tuple[float, Worker]] = []
        self._fair_at = self._calm_until = 0.0
        self.blows: Counter[str] = Counter()
        self._kinds: dict[str, tuple[int, Callable[[], bool]]] = {
            "kill -9: child": (5, self._kill_child),
            "kill -9: listener": (3, self._kill_listener),
            "kill -9: worker": (2, partial(self._kill, "worker")),
            "kill -9: worker and all that it started": (2, self._kill_family),
            "kill -9: relay": (3, partial(self._kill, "relay")),
            "kill -9: API": (2, partial(self._kill, "api")),
            "SIGSTOP past the lease": (2, self._freeze),
            "Redis: FLUSHALL": (2, self._flush),
            "Redis: restart": (1, partial(self._restart, "redis")),
            "Redis: restarted empty": (1, self._restart_empty),
            "Postgres: restart": (1, partial(self._restart, "postgres")),
            "storage: refusing": (2, partial(self._change, Weather.REFUSING)),
            "storage: connections cut": (1, partial(self._change, Weather.CUT)),
            "storage: slow": (2, partial(self._change, Weather.SLOW)),
            "storage: failing afterwards": (2, partial(self._change, Weather.AFTERWARDS)),
            "messages: each twice more": (2, self._duplicate),
            "messages: reordered": (2, self._shuffle),
        }
        self._kinds |= {
            f"Redis: {kind.removeprefix('Redis ')}": (1, partial(self._drop, drop))
            for kind, drop in dropper.kinds.items()
        }

    def rage(self, until: Callable[[], bool], seconds: float) -> float:
        """Deal blows until `until`, then let everything work again; return how many seconds it took."""
        weights = [weight for weight, _ in self._kinds.values()]
        begin = time.monotonic()
        end = begin + seconds
        while not until() and time.monotonic() < end:
            (kind,) = self._chance.choices(list(self._kinds), weights)
            with suppress(psutil.NoSuchProcess, ValueError, redis.RedisError):
                if self._kinds[kind][1]():
                    self.blows[kind] += 1
            self._wait(self._chance.uniform(*PAUSE_SECONDS))
        self._way.weather = Weather.FAIR
        for _, worker in self._thaws:
            worker.signal_all(signal.SIGCONT)
        self._thaws.clear()
        return time.monotonic() - begin

    def awake(self) -> set[int]:
        """Return the pids of the workers that live and are not frozen."""
        return self._crew.living() - {worker.process.pid for _, worker in list(self._thaws)}

    def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (now := time.monotonic()) < end:
            if now > self._fair_at:
                self._way.weather = Weather.FAIR
            for thaw in [thaw for thaw in self._thaws if now > thaw[0]]:
                self._thaws.remove(thaw)
                thaw[1].signal_all(signal.SIGCONT)
            self._crew.tend()
            time.sleep(0.05)

    def _worker(self) -> Worker:
        return self._chance.choice(self._crew.workers())

    def _kill_child(self) -> bool:
        children = [child for worker in self._crew.workers() for child in worker.children()]
        if children:
            self._chance.choice(children).kill()
        return bool(children)

    def _kill_listener(self) -> bool:
        listener = self._worker().listener()
        if listener is not None:
            listener.kill()
        return listener is not None

    def _kill(self, role: str) -> bool:
        self._chance.choice(self._crew.role(role)).process.kill()
        return True

    def _kill_family(self) -> bool:
        self._worker().signal_all(signal.SIGKILL)
        return True

    def _freeze(self) -> bool:
        worker = self._worker()
        self._thaws.append((time.monotonic() + self._chance.uniform(1.2, 2.0) * LEASE_SECONDS, worker))
        worker.signal_all(signal.SIGSTOP)
        return True

    def _flush(self) -> bool:
        self._queue.flushall()
        return True

    def _drop(self, drop: Callable[[], None]) -> bool:
        """Drop connections in one of the ways that take a while; the dead are replaced meanwhile."""
        thread = threading.Thread(target=_unless_away, args=(drop,))
        thread.start()
        while thread.is_alive():
            self._wait(0.1)
        return True

    def _restart_empty(self) -> bool:
        """Restart Redis without what it has kept on its disk."""
        if not self._rested():
            return False
        self._queue.flushall()
        self._servers["redis"].restart()
        return True

    def _restart(self, server: str) -> bool:
        if not self._rested():
            return False
        self._servers[server].restart()
        return True

    def _change(self, weather: Weather) -> bool:
        if not self._rested():
            return False
        self._way.weather = weather
        self._fair_at = time.monotonic() + self._chance.uniform(0.5, 2.0)
        self._calm_until = self._fair_at + CALM_SECONDS
        return True

    def _rested(self) -> bool:
        now = time.monotonic()
        rested = now > self._calm_until
        if rested:
            self._calm_until = now + CALM_SECONDS
        return rested

    def _duplicate(self) -> bool:
        messages = self._queue.lrange(QUEUE, 0, 20)
        if messages:
            self._queue.rpush(QUEUE, *messages, *messages)
        return bool(messages)

    def _shuffle(self) -> bool:
        messages = self._queue.lrange(QUEUE, 0, -1)
        self._chance.shuffle(messages)
        for message in messages:  # one that is taken meanwhile comes twice, which is another blow
            self._queue.lrem(QUEUE, 1, message)
            self._queue.lpush(QUEUE, message)
        return len(messages) > 1


def _unless_away(drop: Callable[[], None]) -> None:
    with suppress(redis.RedisError, psutil.NoSuchProcess):
        drop()


def storm(plan: Plan, folder: Path) -> Outcome:
    """Run a storm with everything in `folder`, and count."""
    begin = time.monotonic()
    chance = random.Random(plan.seed)
    with ExitStack() as stack:
        way = stack.enter_context(flaky(stack.enter_context(object_server(_made(folder / "s3")))))
        environment = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in variables(way.url).items():
            environment.setenv(name, value)
        servers = {
            "postgres": parts.Restartable(partial(embedded_postgres, folder / "postgres", free_port())),
            "redis": parts.Restartable(partial(embedded_redis, folder / "redis", free_port())),
        }
        postgres_url, redis_url = [stack.enter_context(server) for server in servers.values()]
        fairness.note_commits(postgres_url)
        servers["postgres"].restart()
        proxy = stack.enter_context(proxied(redis_url))
        settings = _settings(folder, postgres_url, proxy.url)
        migrations.upgrade(settings.sqlalchemy_url())
        engine = make_engine(settings)
        stack.callback(engine.dispose)
        database = Database(engine)
        tenants = [_tenant(database, name) for name in TENANTS]
        temporary = Path(stack.enter_context(TemporaryDirectory(prefix="storm-")))
        crew = stack.enter_context(_crew(plan, settings, folder, temporary))
        receiver = stack.enter_context(receiving()) if plan.webhook else None
        url = f"http://{settings.host}:{settings.port}"
        listeners = Listeners(url)
        customers = Customers(
            url,
            tenants,
            clip=_made(folder / "clip"),
            jobs=plan.jobs,
            images=plan.images,
            chance=random.Random(plan.seed + 1),
            accepted=listeners.follow,
        )
        if receiver is not None:
            customers.subscribe(receiver.url)
        queue = stack.enter_context(redis.Redis.from_url(redis_url))
        blows = Storm(chance, crew, way, servers, queue, Dropper(queue, proxy))
        watch = IdleWatch(database, blows.awake)
        ids = tuple(tenant.id for tenant in tenants)
        world = World(database, Storage(settings.storage_url), settings, ids, temporary, plan.workers)
        with listeners.listening(plan.listeners), customers.coming(plan.customers), watch.watching():
            storm_seconds = blows.rage(lambda: customers.served() and world.idle(), plan.storm_seconds)
            _settle(crew, lambda: customers.served() and listeners.done() and world.settled(), plan.settle_seconds)
        crew.stop()
        called = None if receiver is None else {call.headers["webhook-id"] for call in list(receiver.calls)}
        found = _counted(world, crew, Witnesses(customers, listeners, watch.stretches, called))
    return Outcome(plan, blows.blows, customers.asked, found, storm_seconds, time.monotonic() - begin)


def _settle(crew: Crew, until: Callable[[], bool], seconds: float) -> None:
    """Let the service work in peace until it owes nothing, or for long enough."""
    end = time.monotonic() + seconds
    while not until() and time.monotonic() < end:
        crew.tend()
        time.sleep(0.2)


def _counted(world: World, crew: Crew, seen: Witnesses) -> tuple[Promise, ...]:
    """Count, once the service has stopped."""
    with suppress(AssertionError):
        wait_until(lambda: not crew.left(), "processes are left", 20.0)
    return promises.count(world, seen, processes_left=len(crew.left()))


def _tenant(database: Database, name: str) -> Tenant:
    with database.transaction() as session:
        key, secret = api_keys.create(session, tenant=name, name="storm", scopes=[Scope.ADMIN])
        return Tenant(key.tenant_id, secret)


def _settings(folder: Path, postgres_url: str, redis_url: str) -> Settings:
    """Return settings under which what takes minutes or days elsewhere takes seconds."""
    audit_key = folder / "audit-key.pem"
    audit_key.write_text(signed_heads.new_key())
    audit_key.chmod(0o600)
    settings = parts.make_settings(postgres_url, redis_url, folder)
    key_folder(settings.signing_dir)
    return settings.model_copy(
        update={
            "storage_url": f"s3://{BUCKET}/storm",
            "pipeline": "tests.support.pipelines:run",
            "child_environment": [MARK],
            "path_roots": [folder],
            "port": free_port(),
            "audit_key_file": audit_key,
            "lease_seconds": LEASE_SECONDS,
            "heartbeat_seconds": 0.5,
            "max_attempts": 1000,
            "sweep_seconds": 2.0,
            "unused_upload_hours": 30 / 3600,
            "unfinished_upload_hours": 45 / 3600,
            "stream_seconds": STREAM_SECONDS,
            "webhook_timeout_seconds": 5.0,
            "webhook_allow_networks": [ip_network("127.0.0.0/8")],
        }
    )


@contextmanager
def _crew(plan: Plan, settings: Settings, folder: Path, temporary: Path) -> Iterator[Crew]:
    crew = Crew(settings, folder, temporary)
    try:
        for role in ["api", *["relay"] * plan.relays, *["worker"] * plan.workers]:
            crew.join(role)
        yield crew
    finally:
        crew.kill()


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def table(outcomes: Sequence[Outcome]) -> Table:
    """Return what was found: a column for each storm."""
    shown = Table("", *(f"seed {outcome.plan.seed}" for outcome in outcomes), "promised", title="After the storm")
    for rows in zip(*(outcome.promises for outcome in outcomes), strict=True):
        cells = [f"{row.found}" if row.kept else f"[bold red]{row.found}[/]" for row in rows]
        shown.add_row(rows[0].name, *cells, rows[0].wanted)
    shown.add_section()
    for wish in sorted(set().union(*(outcome.asked for outcome in outcomes))):
        shown.add_row(f"asked: {wish}", *(str(outcome.asked[wish]) for outcome in outcomes), "")
    shown.add_section()
    for kind in sorted(set().union(*(outcome.blows for outcome in outcomes))):
        shown.add_row(kind, *(str(outcome.blows[kind]) for outcome in outcomes), "")
    shown.add_row("blows", *(str(outcome.blows.total()) for outcome in outcomes), "")
    shown.add_row("seconds of storm", *(f"{outcome.storm_seconds:.0f}" for outcome in outcomes), "")
    shown.add_row("seconds in all", *(f"{outcome.seconds:.0f}" for outcome in outcomes), "")
    return shown


def main() -> int:
    """Run a storm for each seed and print one table; 0 where every promise was kept."""
    parser = ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--jobs", type=int, default=Plan.jobs, help="of both tenants together")
    parser.add_argument("--seed", type=int, action="append")
    parser.add_argument("--workers", type=int, default=Plan.workers)
    parser.add_argument("--storm-seconds", type=float, help="the blows end after this; by default it grows with --jobs")
    parser.add_argument(
        "--keep", type=Path, help="a folder for logs and data, one for each seed; else they are deleted"
    )
    options = parser.parse_args()
    outcomes = []
    seconds = options.storm_seconds or max(Plan.storm_seconds, SECONDS_A_JOB * options.jobs)
    settle = max(Plan.settle_seconds, SECONDS_A_JOB * options.jobs)
    for seed in options.seed or [1]:
        plan = Plan(options.jobs, seed, options.workers, storm_seconds=seconds, settle_seconds=settle)
        with ExitStack() as stack:
            folder = options.keep or Path(stack.enter_context(TemporaryDirectory(prefix="storm-")))
            outcomes.append(storm(plan, folder / f"seed-{seed}"))
        Console().print(table(outcomes[-1:]))
    if len(outcomes) > 1:
        Console().print(table(outcomes))
    return 0 if all(outcome.kept for outcome in outcomes) else 1


if __name__ == "__main__":
    raise SystemExit(main())
