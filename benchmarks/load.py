"""Claim: 1,000 jobs posted by 8 clients are all accepted and none is lost.

    python -m benchmarks.load [--jobs 1000] [--clients 8]

Posts to a fresh `efface up`, then lists every job and compares the two sets of ids. The same run measures
`GET /health/live`, an endpoint that touches nothing, with the same clients: what the HTTP server alone costs here.
"""

import argparse
import json
import platform
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import httpx
import numpy as np

from benchmarks.service import Service, add_demo_model, demo_request, efface_up


def timed(send: "partial[httpx.Response]") -> tuple[float, httpx.Response]:
    """Return (seconds, response)."""
    start = time.monotonic()
    response = send()
    return time.monotonic() - start, response


def hammer(
    service: Service, clients: int, count: int, method: str, path: str, **arguments: object
) -> dict[str, object]:
    """Send `count` requests from `clients` threads, one connection each; return latencies in ms and the bodies."""

    def one_client(share: int) -> list[tuple[float, httpx.Response]]:
        with service.client() as client:
            return [timed(partial(client.request, method, path, **arguments)) for _ in range(share)]  # type: ignore[arg-type]

    shares = [count // clients + (i < count % clients) for i in range(clients)]
    start = time.monotonic()
    with ThreadPoolExecutor(clients) as pool:
        answers = [answer for answers in pool.map(one_client, shares) for answer in answers]
    seconds = time.monotonic() - start
    milliseconds = [1000 * took for took, _ in answers]
    return {
        "requests": count,
        "clients": clients,
        "accepted": sum(response.is_success for _, response in answers),
        "p50_ms": round(float(np.percentile(milliseconds, 50)), 1),
        "p99_ms": round(float(np.percentile(milliseconds, 99)), 1),
        "per_second": round(count / seconds, 1),
        "ids": {response.json().get("id") for _, response in answers if response.is_success},
    }


def listed(client: httpx.Client) -> set[str]:
    """Return the id of every job there is."""
    ids: set[str] = set()
    after = None
    while True:
        page = (
            client.get("/jobs", params={"limit": 100} | ({"after": after} if after else {})).raise_for_status().json()
        )
        ids |= {job["id"] for job in page["data"]}
        if not page["has_more"]:
            return ids
        after = page["data"][-1]["id"]


def main() -> None:
    """Measure and print one JSON line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=8)
    args = parser.parse_args()
    with efface_up() as service, service.client() as client:
        request = demo_request(add_demo_model(service))
        bare = hammer(service, args.clients, args.jobs, "GET", "/health/live")
        posted = hammer(service, args.clients, args.jobs, "POST", "/jobs", json=request)
        ids = posted.pop("ids")
        bare.pop("ids")
        posted["lost"] = len(ids - listed(client))  # type: ignore[operator]
    print(json.dumps({"GET /health/live": bare}))
    print(json.dumps({"POST /jobs": posted, "machine": platform.platform(), "python": platform.python_version()}))


if __name__ == "__main__":
    main()
