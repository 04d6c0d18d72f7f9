"""Claim: both methods run on real images through both doors, and the reports can be reproduced
without our code.

    python -m benchmarks.bench_requests [--data bench-data] [--out bench-data/runs] [--via run http]

For each file in benchmarks/requests: `efface run`, then `efface submit --wait` against a fresh
`efface up` (archives uploaded over HTTP), then benchmarks/independent_evaluation.py on what came
out. Prints one table; exits 1 if anything disagrees."""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.service import EFFACE, efface_up

REQUESTS = Path(__file__).parent / "requests"


def run_here(request: Path, out: Path) -> tuple[int, float]:
    """`efface run`; return its exit code and seconds."""
    start = time.monotonic()
    code = subprocess.run([EFFACE, "run", request, "--out", out]).returncode
    return code, time.monotonic() - start


def run_over_http(request: Path, out: Path, environment: dict[str, str]) -> tuple[int, float]:
    """`efface submit --wait`, then fetch report and weights; return the first's exit code and
    seconds.
    """
    start = time.monotonic()
    done = subprocess.run(
        [EFFACE, "submit", request, "--wait"], env=environment, stdout=subprocess.PIPE, text=True
    )
    seconds = time.monotonic() - start
    job = done.stdout.split()[0]
    out.mkdir(parents=True, exist_ok=True)
    with (out / "report.json").open("w") as file:
        subprocess.run([EFFACE, "report", job], env=environment, stdout=file, check=True)
    if done.returncode == 0:
        subprocess.run(
            [EFFACE, "weights", job, "--out", out / "model"], env=environment, check=True
        )
    return done.returncode, seconds


def check(request: Path, out: Path) -> bool:
    """Evaluate independently; return whether the report was reproduced."""
    before = json.loads(request.read_text())["model"]["source"].removeprefix("local-dir:")
    after = out / "model" if (out / "model").exists() else out / "quarantine"
    command = [
        sys.executable,
        "-m",
        "benchmarks.independent_evaluation",
        out / "report.json",
        before,
        after,
    ]
    return subprocess.run([*command, "--request", request]).returncode == 0


def main() -> None:
    """Run everything and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("bench-data/runs"))
    parser.add_argument("--via", nargs="+", choices=["run", "http"], default=["run", "http"])
    args = parser.parse_args()
    rows = []
    for via in args.via:
        for request in sorted(REQUESTS.glob("*.json")):
            out = args.out / via / request.stem
            if via == "run":
                code, seconds = run_here(request, out)
            else:
                with efface_up() as service:
                    code, seconds = run_over_http(request, out, service.environment())
            report = json.loads((out / "report.json").read_text())
            rows.append((via, request.stem, code, seconds, report, check(request, out)))
    for via, name, code, seconds, report, agrees in rows:
        target = report["target"]["accuracy"]
        fall = (
            f"target {100 * target['before']['value']:.1f} -> "
            f"{100 * target['after']['value']:.1f} %"
        )
        agreement = "reproduced" if agrees else "NOT REPRODUCED"
        print(
            f"{via:>4}  {name:<32} exit {code}  {report['verdict']:<6}  {fall}  {seconds:.0f} "
            "s  "
            f"{agreement}"
        )
    sys.exit(not all(agrees for *_, agrees in rows))


if __name__ == "__main__":
    main()
