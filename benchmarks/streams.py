"""Claim: event streams that nothing happens on cost other tenants nothing.

    python -m benchmarks.streams [--streams 1000] [--requests 400]

Runs a gateway whose limit of streams per tenant is far away, opens streams of one tenant on a
job that is on hold, and times `GET /jobs` of another tenant without them and with them; between
the two, the statements that Postgres has counted while nobody asked anything. The streams are
read by a process of their own."""

import argparse
import json
import multiprocessing
import platform
import resource
import selectors
import socket
import statistics
import time
from multiprocessing.synchronize import Event
from urllib.parse import urlsplit

import httpx
import psycopg

from benchmarks.service import FAR, Service, gateway_alone
from services.access import api_keys
from services.catalog import models
from services.jobs import submission
from shared.postgres.database import Database
from shared.schemas.request import ErasureRequest
from shared.settings import Settings
from shared.states import Scope

QUIET_SECONDS = 10.0
SETTLE_SECONDS = 15.0
"""Postgres counts what an idle connection has done within ten."""


def hold_streams(url: str, key: str, job: str, count: int, opened: Event, end: Event) -> None:
    """Open streams and read what comes, until told to end."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    address = urlsplit(url)
    ready = selectors.DefaultSelector()
    head = (
        f"GET /jobs/{job}/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nAccept: "
        "text/event-stream\r\n\r\n"
    )
    for _ in range(count):
        connection = socket.create_connection((address.hostname, address.port))
        connection.sendall(head.encode())
        answer = connection.recv(65536)
        if not answer.startswith(b"HTTP/1.1 200"):
            raise SystemExit(answer.decode(errors="replace"))
        ready.register(connection, selectors.EVENT_READ)
    opened.set()
    while not end.is_set():
        for chosen, _ in ready.select(0.2):
            if not chosen.fileobj.recv(65536):  # type: ignore[union-attr]
                raise SystemExit("a stream has ended")


def percentiles(client: httpx.Client, count: int) -> dict[str, float]:
    """Return how long `GET /jobs` takes, in milliseconds."""
    times = []
    for _ in range(count):
        begin = time.perf_counter()
        client.get("/jobs").raise_for_status()
        times.append(1000 * (time.perf_counter() - begin))
    return {
        "p50_ms": round(statistics.median(times), 1),
        "p95_ms": round(statistics.quantiles(times, n=20)[-1], 1),
    }


def statements_per_second(database_url: str) -> float:
    """Return the transactions that Postgres ends in a second in which nobody asks for anything."""

    def taken() -> int:
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute("SELECT pg_stat_clear_snapshot()")
            row = connection.execute(
                "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = "
                "current_database()"
            ).fetchone()
            return int(row[0]) if row else 0

    time.sleep(SETTLE_SECONDS)
    before = taken()
    time.sleep(QUIET_SECONDS)
    return round((taken() - before) / QUIET_SECONDS, 2)


def a_held_job(database: Database, settings: Settings) -> str:
    """Make a job of the tenant `bench` that no worker takes."""
    with database.transaction() as session:
        tenant = api_keys.tenant_named(session, "bench").id
        values: dict[str, object] = {"id": "mdl_bench", "reference": "storage:nowhere"}
        models.add(session, tenant_id=tenant, name="clip", values=values)
        request = ErasureRequest.model_validate(
            {
                "model": {"id": "mdl_bench"},
                "target": {"type": "class", "class": "horse", "labels": ["horse", "cow"]},
                "method": {"name": "synthetic"},
            }
        )
        return submission.submit(session, tenant, request, settings).id


def measure(service: Service, database: Database, streams: int, requests: int) -> dict[str, object]:
    """Return how another tenant fares without and with streams."""
    url = database.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    job = a_held_job(database, Settings())
    with database.transaction() as session:
        other = api_keys.create(session, tenant="other", name="other", scopes=[Scope.JOBS_READ])[1]
    headers = {"Authorization": f"Bearer {other}"}
    found: dict[str, object] = {
        "streams": streams,
        "requests": requests,
        "machine": platform.platform(),
    }
    with httpx.Client(base_url=service.url, headers=headers, timeout=60) as client:
        percentiles(client, 50)
        found["without"] = percentiles(client, requests) | {
            "statements_per_s": statements_per_second(url)
        }
        context = multiprocessing.get_context("spawn")
        opened, end = context.Event(), context.Event()
        holder = context.Process(
            target=hold_streams, args=(service.url, service.key, job, streams, opened, end)
        )
        holder.start()
        try:
            while not opened.wait(0.5):
                if not holder.is_alive():
                    raise SystemExit("the streams could not be opened")
            found["with"] = percentiles(client, requests) | {
                "statements_per_s": statements_per_second(url)
            }
        finally:
            end.set()
            holder.join(30)
    return found


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--requests", type=int, default=400)
    wanted = parser.parse_args()
    with gateway_alone(EFFACE_MAX_STREAMS=str(FAR), EFFACE_MAX_CONNECTIONS=str(FAR)) as (
        service,
        database,
        _,
    ):
        print(json.dumps(measure(service, database, wanted.streams, wanted.requests), indent=1))


if __name__ == "__main__":
    main()
