"""Claim: a posted job reports its first progress in under a second (median), because a standby
child waits for it.

    python -m benchmarks.latency [--jobs 20]

Posts jobs one after another to a fresh `efface up` (embedded Postgres and Redis, one worker, the
demo's model), listens on the job's event stream and takes the time from sending the POST to the
first event of the child. Each job is cancelled and the next is posted once a standby child waits
again, as the claim is about one."""

import argparse
import json
import platform
import statistics
import time

import httpx

from benchmarks.service import add_demo_model, demo_request, efface_up

SETTLE_SECONDS = 8.0
"""Long enough for the next standby child to finish its imports on two cores."""


def first_progress(client: httpx.Client, request: dict[str, object]) -> float:
    """Post a job, return the seconds until its first stage event, and cancel it."""
    start = time.monotonic()
    job = client.post("/jobs", json=request).raise_for_status().json()["id"]
    with client.stream(
        "GET", f"/jobs/{job}/events", headers={"Accept": "text/event-stream"}
    ) as stream:
        for line in stream.iter_lines():
            if line.startswith("event:") and line.split(":", 1)[1].strip() == "job.stage":
                seconds = time.monotonic() - start
                break
    client.post(f"/jobs/{job}/cancel").raise_for_status()
    return seconds


def main() -> None:
    """Measure and print one JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=20)
    count = parser.parse_args().jobs
    with efface_up() as service, service.client() as client:
        request = demo_request(add_demo_model(service))
        times = []
        for _ in range(count):
            time.sleep(SETTLE_SECONDS)
            times.append(first_progress(client, request))
    print(
        json.dumps(
            {
                "n": count,
                "median_s": round(statistics.median(times), 3),
                "min_s": round(min(times), 3),
                "max_s": round(max(times), 3),
                "machine": platform.platform(),
                "python": platform.python_version(),
            }
        )
    )


if __name__ == "__main__":
    main()
