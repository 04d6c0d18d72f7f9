"""Claim: `auto` forgets what it is asked or says that it could not, and publishes nothing against
its gate.

    python -m benchmarks.auto [--data bench-data] [--out bench-data/runs/auto] [--only NAME ...]
    [--list]

Twelve requests, each through the whole pipeline (`efface run`): six from a name alone (two
models x horse, airplane, cat), three with forget images, three with forget and retain images,
one of these a subgroup. Thresholds: forget accuracy at most 5 %, at most 2 points of the rest.
Exits 1 if a job is published that misses one of them, judged from the report's own numbers."""

import argparse
import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.bench_archives import write_tar
from benchmarks.bench_images import CIFAR, PACS
from benchmarks.service import EFFACE

LIMITS = {"max_forget_accuracy": 0.05, "max_retain_drop": 0.02, "max_transfer_drop": None}
FORGET_IMAGES, RETAIN_IMAGES = 96, 192


class Task(NamedTuple):
    """One request."""

    model: str
    label: str
    given: tuple[str, ...]
    subgroup: str | None = None

    @property
    def name(self) -> str:
        """As on the command line and in the table."""
        return "_".join(
            (self.model, *filter(None, [self.subgroup]), self.label, *(self.given or ("names",)))
        )


BOTH = ("forget", "retain")
TASKS = (
    *(
        Task(model, label, ())
        for model in ("vit-xs-32", "rn-mini")
        for label in ("horse", "airplane", "cat")
    ),
    Task("vit-xs-32", "horse", ("forget",)),
    Task("rn-mini", "airplane", ("forget",)),
    Task("vit-xs-32", "cat", ("forget",)),
    Task("vit-xs-32", "airplane", BOTH),
    Task("rn-mini", "horse", BOTH),
    Task("rn-mini", "elephant", BOTH, "sketch"),
)


def archives(data: Path, out: Path, label: str) -> dict[str, str]:
    """Pack CIFAR-10 training images of a class and of all others, once; return the paths by
    role.
    """
    paths = {role: out / "archives" / f"cifar10_{label}_{role}.tar" for role in BOTH}
    if not all(path.exists() for path in paths.values()):
        images = sorted((data / "cifar10" / "train").glob("*/*.png"))
        random.Random(0).shuffle(images)
        gone = [file for file in images if file.parent.name == label][:FORGET_IMAGES]
        kept = [file for file in images if file.parent.name != label][:RETAIN_IMAGES]
        for role, files in zip(BOTH, (gone, kept), strict=True):
            write_tar(paths[role], [(f"{file.parent.name}/{file.name}", file) for file in files])
    return {role: str(path) for role, path in paths.items()}


def request_of(task: Task, data: Path, out: Path) -> dict[str, Any]:
    """Return the body of a task."""
    packed = data / "archives"
    if task.subgroup:
        stem = packed / f"pacs_{task.label}_{task.subgroup}"
        target = {"type": "subgroup", "subgroup": task.subgroup, "labels": PACS}
        images: dict[str, Any] = {
            role: f"{stem}_{role}.tar" for role in (*BOTH, "forget_test", "retain_test")
        }
    else:
        own = archives(data, out, task.label) if task.given else {}
        target = {"type": "class", "labels": CIFAR}
        evaluation = [
            {"name": "cifar10", "dataset": str(packed / "cifar10_test_1000.tar")},
            {"name": "pacs", "dataset": str(packed / "pacs_test.tar")},
        ]
        images = {role: own[role] for role in task.given} | {"evaluation": evaluation}
    return {
        "model": {"source": f"local-dir:{data / 'models' / task.model}"},
        "target": target | {"class": task.label},
        "method": {"name": "auto"},
        "data": images,
        "thresholds": LIMITS,
        "external_id": task.name,
    }


def row(task: Task, data: Path, out: Path) -> tuple[str, bool]:
    """Run a task; return its line of the table and whether it kept its promise."""
    folder = out / task.name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "request.json").write_text(json.dumps(request_of(task, data, out), indent=2))
    (folder / "report.json").unlink(missing_ok=True)
    start = time.monotonic()
    code = subprocess.run([EFFACE, "run", folder / "request.json", "--out", folder]).returncode
    seconds = time.monotonic() - start
    if not (folder / "report.json").exists():
        return f"{task.name:34} no verdict, exit {code}", True
    report = json.loads((folder / "report.json").read_text())
    own = next(e for e in report["evaluations"] if e["role"] == "target")
    forget, retain = (own[side] for side in ("forget", "retain"))
    drop = retain["before"]["value"] - retain["after"]["value"]
    met = (
        forget["after"]["value"] <= LIMITS["max_forget_accuracy"]
        and drop <= LIMITS["max_retain_drop"]
    )
    tried = " > ".join(f"{t['method']} ({t['outcome']})" for t in report["method"]["tried"])
    line = (
        f"{task.name:34} {report['method']['chosen']:12} {100 * forget['before']['value']:5.1f} -> "
        f"{100 * forget['after']['value']:5.1f} %  rest {-100 * drop:+5.1f}  {report['verdict']:6} "
        f" {seconds:4.0f} s  {tried}"
    )
    return line, met or report["verdict"] == "failed"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("bench-data"))
    parser.add_argument("--out", type=Path, default=Path("bench-data/runs/auto"))
    parser.add_argument("--only", nargs="+", choices=[task.name for task in TASKS], metavar="NAME")
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    args = parser.parse_args()
    if args.list:
        print(*(task.name for task in TASKS), sep="\n")
        return
    if not (args.data / "archives").is_dir():
        parser.error(
            f"--data: there is no {args.data}/archives; run benchmarks.bench_archives first"
        )
    chosen = [task for task in TASKS if not args.only or task.name in args.only]
    rows = [row(task, args.data, args.out) for task in chosen]
    for line, _ in rows:
        print(line)
    sys.exit(not all(kept for _, kept in rows))


if __name__ == "__main__":
    main()
