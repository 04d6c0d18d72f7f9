"""Claim: the standard audit adds at most 30 % to a job's time, the thorough one stays under five
minutes on the demo.

python -m benchmarks.audit_cost

Runs the demo's two erasures in this process, without a service, and prints the processor seconds of
the job and, of these, of the measures. (Features of the images are computed for the accuracies,
audit or not.) One thread of a shared Xeon:

| erasure | level | job, s | measures, s | more than without |
|---|---|---|---|---|
| class | standard | 17.6 | 0.8 | 5 % |
| class | thorough | 40.3 | 23.0 | 133 % |
| subgroup | standard | 8.9 | 0.8 | 9 % |
| subgroup | thorough | 35.9 | 28.1 | 357 % |

Of the class job 11 s or more are spent on samples, which a second request for the same model and
labels finds in the bank."""

import argparse
import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from api.demo.drawings import OBJECTS, SYNONYMS
from api.demo.scenario import FORGOTTEN_CELL, FORGOTTEN_CLASS, MODEL, draw_sets
from shared.ports.object_storage import Storage
from shared.schemas.request import ErasureRequest
from shared.settings import Settings
from worker import pipeline
from worker.evaluation.suite import AuditResult, run_audit
from worker.ports import Silent
from worker.resolve import resolve_paths


def demo_requests(folder: Path) -> dict[str, dict[str, Any]]:
    """Draw what the demo draws, and return its two requests by name."""
    paths = {name: str(path) for name, path, _ in draw_sets(folder)}
    common = {"model": {"source": f"local-dir:{MODEL}"}}
    objects, shapes = ({"name": name, "dataset": paths[name]} for name in ("objects", "shapes"))
    umbrella = {
        "type": "class",
        "class": FORGOTTEN_CLASS,
        "synonyms": SYNONYMS[FORGOTTEN_CLASS],
        "labels": list(OBJECTS),
    }
    fish = {
        "type": "subgroup",
        "class": FORGOTTEN_CELL.name,
        "subgroup": FORGOTTEN_CELL.style,
        "labels": list(OBJECTS),
    }
    images = {role: paths[role] for role in ("forget", "retain", "forget_test", "retain_test")}
    return {
        "class": common
        | {
            "target": umbrella,
            "method": {"name": "synthetic"},
            "data": {"evaluation": [objects, shapes]},
        },
        "subgroup": common
        | {
            "target": fish,
            "method": {"name": "three_stage"},
            "data": images | {"evaluation": [shapes]},
        },
    }


class Timed:
    """The audit, and how long it took."""

    seconds = 0.0

    def __call__(self, *arguments: Any) -> AuditResult:  # noqa: ANN401
        """Run the audit."""
        start = time.process_time()
        result = run_audit(*arguments)
        self.seconds = time.process_time() - start
        return result


def run(request: Mapping[str, Any], folder: Path) -> tuple[dict[str, Any], float, float]:
    """Run one request; return its report, and the processor seconds of the job and of its
    measures.
    """
    timed = Timed()
    folder.mkdir()
    storage = Storage(f"file://{folder}/objects")
    scratch = folder / "scratch"
    scratch.mkdir()
    spec = resolve_paths(ErasureRequest.model_validate(request), Settings(_env_file=None))
    start = time.process_time()
    with patch.object(pipeline, "run_audit", timed):
        pipeline.run_pipeline(spec, storage, Silent(), scratch, "cpu")
    seconds = time.process_time() - start
    return json.loads(storage.get(f"{spec.attempt_prefix}/report.json")), seconds, timed.seconds


def main() -> None:
    """Print the two requests' seconds at each level."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--levels", nargs="+", default=["standard", "thorough"])
    parser.add_argument("--keep", type=Path, help="a folder for the reports")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as place:
        for name, request in demo_requests(Path(place)).items():
            for level in args.levels:
                report, seconds, audit = run(
                    request | {"audit": {"level": level}}, Path(place) / f"{name}-{level}"
                )
                share = audit / (seconds - audit)
                print(
                    f"{name}, {level}: {report['verdict']}, evidence {report['evidence']}; "
                    f"{seconds:.1f} s, of which "
                    f"{audit:.1f} s are the measures: {share:.0%} more than without",
                    flush=True,
                )
                if args.keep:
                    args.keep.mkdir(parents=True, exist_ok=True)
                    (args.keep / f"{name}-{level}.json").write_text(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
