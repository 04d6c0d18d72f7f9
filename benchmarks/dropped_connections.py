"""Claim: no job waits for more than ten seconds beside an idle worker, whatever becomes of its
connections to Redis.

    python -m benchmarks.dropped_connections [--rounds 50] [--away 600]

A real Postgres, Redis, relay and worker. Each round drops the connections in one way while the
worker is idle, then submits a job that its child fails at once, and takes down how long the job
waited for the worker. At last Redis is out of reach for `--away` seconds, in which a job is
submitted every 15 s. The pipeline is `tests.support.pipelines`; no torch is needed."""

import argparse
import json
import platform
import sys
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import redis
import structlog

import migrations
from shared.ports.embedded_servers import embedded_postgres, embedded_redis
from shared.ports.object_storage import Storage
from tests.support import parts
from tests.support.dropping import Dropper, Proxy, Waits, play, proxied, wait_for
from tests.support.fleet import Fleet, make_fleet

BETWEEN_SECONDS = 15.0


def away(fleet: Fleet, proxy: Proxy, seconds: float) -> Waits:
    """Submit jobs while Redis is out of reach."""
    end = time.monotonic() + seconds
    proxy.refuse()
    rounds = 0
    waits = Waits()
    while time.monotonic() < end:
        found = play(fleet, lambda: None, 1)
        rounds += 1
        waits = Waits(rounds, waits.forgotten + found.forgotten, max(waits.longest, found.longest))
        time.sleep(max(0.0, min(BETWEEN_SECONDS, end - time.monotonic())))
    proxy.serve()
    return waits


def say(kind: str, waits: Waits) -> None:
    """Print a line."""
    row = {
        "kind": kind,
        "rounds": waits.rounds,
        "waits_over_10_s": waits.forgotten,
        "longest_s": round(waits.longest, 2),
    }
    print(json.dumps(row), flush=True)


def main() -> int:
    """Measure; print one JSON line for each kind, then what was found in all; 0 where no job was
    forgotten.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument(
        "--away", type=float, default=60.0, help="seconds in which Redis is out of reach"
    )
    options = parser.parse_args()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    forgotten, longest = 0, 0.0
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="efface-bench-")))
        postgres_url = stack.enter_context(embedded_postgres(folder / "postgres"))
        redis_url = stack.enter_context(embedded_redis(folder / "redis"))
        proxy = stack.enter_context(proxied(redis_url))
        settings = parts.make_settings(postgres_url, proxy.url, folder).model_copy(
            update={"lease_seconds": 30, "reconcile_seconds": 5, "republish_seconds": 30}
        )
        migrations.upgrade(settings.sqlalchemy_url())
        database = stack.enter_context(parts.emptied_database(settings))
        fleet = stack.enter_context(
            make_fleet(settings, database, Storage(settings.storage_url), folder)
        )
        stack.enter_context(fleet.relay())
        fleet.worker()
        wait_for(fleet, fleet.submit(what="fail", at="preparing"))
        client = stack.enter_context(redis.Redis.from_url(redis_url))
        dropper = Dropper(client, proxy)
        kinds = {
            kind: partial(play, fleet, drop, options.rounds) for kind, drop in dropper.kinds.items()
        }
        kinds[f"Redis away for {options.away:g} s"] = partial(away, fleet, proxy, options.away)
        for kind, measure in kinds.items():
            waits = measure()
            say(kind, waits)
            forgotten, longest = forgotten + waits.forgotten, max(longest, waits.longest)
        log = fleet.workers[-1].plain_log()
        renewals = log.count("doorbell.silent") + log.count("doorbell.ended")
    print(
        json.dumps(
            {
                "waits_over_10_s": forgotten,
                "longest_s": round(longest, 2),
                "listeners_made_anew": renewals,
                "machine": platform.platform(),
                "python": platform.python_version(),
            }
        )
    )
    return 1 if forgotten else 0


if __name__ == "__main__":
    raise SystemExit(main())
