"""Claim: how many requests `POST /jobs` accepts beside an endpoint that does one INSERT; it loses
none.

    python -m benchmarks.load [--requests 600] [--clients 8 64] [--rounds 3]

Starts Postgres, Redis, the gateway and the relay (no worker: it would take the processor from
what is measured), and on the same Postgres a bare FastAPI endpoint with one INSERT
(`benchmarks/bare.py`). The two take turns, so that both see the machine in the same moods; the
ratio is of the medians over the rounds. Then a job is polled with `If-None-Match`. At the end
every accepted job is looked for. Clients are threads with one kept connection each, on the same
machine."""

import argparse
import http.client
import json
import os
import platform
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx
import numpy as np

from benchmarks.service import Service, add_demo_model, demo_request, gateway_with_bare_endpoint

WARM_UP = 50


@dataclass(frozen=True)
class Call:
    """One request, to be sent many times."""

    url: str
    method: str
    path: str
    headers: dict[str, str]
    body: bytes | None
    status: int


@dataclass(frozen=True)
class Round:
    """What `count` requests took."""

    milliseconds: list[float]
    seconds: float
    accepted: list[bytes]
    """The bodies of the answers with the right status."""

    @property
    def per_second(self) -> float:
        """Accepted requests per second."""
        return len(self.accepted) / self.seconds


def hammer(call: Call, clients: int, count: int) -> Round:
    """Send `count` requests from `clients` threads."""
    shares = [count // clients + (i < count % clients) for i in range(clients)]
    start = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        answers = [
            answer
            for answers in pool.map(lambda share: one_client(call, share), shares)
            for answer in answers
        ]
    seconds = time.perf_counter() - start
    accepted = [body for _, status, body in answers if status == call.status]
    return Round([1000 * took for took, _, _ in answers], seconds, accepted)


def one_client(call: Call, count: int) -> list[tuple[float, int, bytes]]:
    """Send `count` requests over one connection; return (seconds, status, body) of each."""
    connection = http.client.HTTPConnection(urlsplit(call.url).netloc, timeout=60)
    answers = []
    for _ in range(count):
        start = time.perf_counter()
        connection.request(call.method, call.path, call.body, call.headers)
        response = connection.getresponse()
        body = response.read()
        answers.append((time.perf_counter() - start, response.status, body))
    connection.close()
    return answers


def summary(rounds: list[Round]) -> dict[str, float]:
    """Return the figures of several rounds: percentiles over all requests, the median of the
    rates.
    """
    milliseconds = [took for one in rounds for took in one.milliseconds]
    return {
        "requests": len(milliseconds),
        "accepted": sum(len(one.accepted) for one in rounds),
        "p50_ms": round(float(np.percentile(milliseconds, 50)), 1),
        "p99_ms": round(float(np.percentile(milliseconds, 99)), 1),
        "per_second": round(statistics.median(one.per_second for one in rounds), 1),
    }


def listed(client: httpx.Client) -> set[str]:
    """Return the id of every job there is."""
    ids: set[str] = set()
    after: dict[str, str] = {}
    while True:
        page = client.get("/jobs", params={"limit": "100"} | after).raise_for_status().json()
        ids |= {job["id"] for job in page["data"]}
        if not page["has_more"]:
            return ids
        after = {"after": page["data"][-1]["id"]}


def measure(service: Service, bare_url: str, clients: list[int], count: int, rounds: int) -> None:
    """Measure and print one JSON line for each number of clients and each call."""
    authorised = {"Authorization": f"Bearer {service.key}", "Content-Type": "application/json"}
    body = json.dumps(demo_request(add_demo_model(service))).encode()
    post = Call(service.url, "POST", "/jobs", authorised, body, 202)
    bare = Call(bare_url, "POST", "/", {"Content-Type": "application/json"}, body, 201)
    ids: list[str] = []
    for warming in (post, bare):
        ids += [
            json.loads(answer)["id"]
            for answer in hammer(warming, 8, WARM_UP).accepted
            if warming is post
        ]
    poll = Call(
        service.url, "GET", f"/jobs/{ids[0]}", authorised | {"If-None-Match": '"1"'}, None, 304
    )
    for number in clients:
        turns = [(hammer(bare, number, count), hammer(post, number, count)) for _ in range(rounds)]
        ids += [json.loads(answer)["id"] for _, one in turns for answer in one.accepted]
        one_insert, posted = summary([one for one, _ in turns]), summary([one for _, one in turns])
        polled = summary([hammer(poll, number, count)])
        print(json.dumps({"clients": number, "one INSERT": one_insert}))
        print(json.dumps({"clients": number, "POST /jobs": posted}))
        print(json.dumps({"clients": number, "GET /jobs/{id}, If-None-Match": polled}))
        print(
            json.dumps(
                {
                    "clients": number,
                    "ratio": round(posted["per_second"] / one_insert["per_second"], 2),
                }
            )
        )
    with service.client() as client:
        print(
            json.dumps(
                {
                    "accepted": len(ids),
                    "lost": len(set(ids) - listed(client)),
                    "twice": len(ids) - len(set(ids)),
                }
            )
        )


def main() -> None:
    """Say how busy the machine is, and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=600, help="in each round")
    parser.add_argument("--clients", type=int, nargs="+", default=[8, 64])
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    machine = {
        "machine": platform.platform(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }
    print(json.dumps(machine | {"load_before": round(os.getloadavg()[0], 2)}))
    with gateway_with_bare_endpoint() as (service, bare_url):
        measure(service, bare_url, args.clients, args.requests, args.rounds)


if __name__ == "__main__":
    main()
