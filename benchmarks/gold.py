"""Claim: how far every method of the service is from a model that never saw what it forgets; the
bad rows stay.

python -m benchmarks.gold --pairs class subgroup cifar --seeds 0 1 2

Trains pairs of small CLIPs, one that saw what is to be forgotten and one that never did
(`benchmarks/gold_pairs.py`), and runs every method on the first through the pipeline, with the
second as `audit.reference` and a thorough audit. All columns are measures of the reports. Models
and reports are kept below `--out` by digests of all that they depend on, so that a second call goes
on where the first one stopped; after a change of the methods or the audit, empty its folder
`reports`. The figures are in docs/scoreboard.md.

`data.forget` and `data.retain` are images that the original was trained on, as those of whoever
asks would be; what is measured is measured on images that no model saw. All methods are given
the same, whether they read them or not."""

import argparse
import hashlib
import json
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import torch

from api.demo.drawings import OBJECTS, SHAPES, SYNONYMS, TRAINING_SEED, Cell, cells, write_archive
from api.demo.scenario import FORGOTTEN_CELL, FORGOTTEN_CLASS
from benchmarks.bench_images import CIFAR
from benchmarks.gold_pairs import (
    CIFAR_CLASS,
    CIFAR_SYNONYMS,
    Pair,
    cifar,
    demo_class,
    demo_subgroup,
)
from shared.errors import JobFailure
from shared.files.image_archives import file_sha256
from shared.ports.object_storage import Storage
from shared.schemas.measures import Measure, Value
from shared.schemas.report import Report
from shared.schemas.request import ErasureRequest
from shared.settings import Settings
from shared.states import Stage
from worker.evaluation.measures import relearning
from worker.evaluation.measures.relearning import Lesson, Trace
from worker.evaluation.subject import Subject
from worker.pipeline import run_pipeline
from worker.ports import Silent
from worker.resolve import resolve_paths

METHODS: dict[str, dict[str, Any]] = {
    "synthetic": {"name": "synthetic"},
    "synthetic, samples_only": {"name": "synthetic", "parameters": {"mode": "samples_only"}},
    "synthetic, faithful": {"name": "synthetic", "parameters": {"mode": "faithful"}},
    "three_stage": {"name": "three_stage"},
    "three_stage, faithful": {"name": "three_stage", "parameters": {"preset": "faithful"}},
    "null_space": {"name": "null_space"},
    "delete": {"name": "delete"},
    "slug": {"name": "slug"},
    "clip_erase": {"name": "clip_erase"},
    "pbu": {"name": "pbu"},
    "gradient_ascent": {"name": "gradient_ascent"},
}
BY_NAME = {"synthetic", "null_space"}
"""Methods that work from names, and cannot tell a subgroup."""
WITHOUT_SEED = {"null_space"}
HELD_OUT_SEED = 21
FORGET, RETAIN = 200, 100
"""CIFAR-10 images of a class that a request gives: of what is forgotten twice as many."""
TESTED = 120
"""Test images of each class of CIFAR-10."""
OVERHEAD = (Stage.PREPARING, Stage.AUDITING, Stage.PUBLISHING)


class Bench(NamedTuple):
    """A pair of models and a request without its method."""

    pair: Pair
    body: dict[str, Any]
    place: str
    """The set on which what is forgotten is measured."""


def class_bench(out: Path, _: Path) -> Bench:
    """Return the demo's umbrellas."""
    folder = out / "data"
    body = {
        "target": {
            "type": "class",
            "class": FORGOTTEN_CLASS,
            "synonyms": SYNONYMS[FORGOTTEN_CLASS],
            "labels": [*OBJECTS],
        },
        "data": {
            "forget": _drawn(folder, "umbrellas", cells([FORGOTTEN_CLASS]), 50, TRAINING_SEED),
            "retain": _drawn(
                folder,
                "objects",
                [c for c in cells() if c.name != FORGOTTEN_CLASS],
                20,
                TRAINING_SEED,
            ),
            "evaluation": [
                {
                    "name": "objects",
                    "dataset": _drawn(folder, "held-out-objects", cells(), 30, HELD_OUT_SEED),
                },
                {
                    "name": "shapes",
                    "dataset": _drawn(folder, "held-out-shapes", cells(SHAPES), 10, HELD_OUT_SEED),
                },
            ],
        },
    }
    return Bench(demo_class(out), body, "objects")


def subgroup_bench(out: Path, _: Path) -> Bench:
    """Return the demo's fish in the style sketch."""
    folder, others = out / "data", [cell for cell in cells() if cell != FORGOTTEN_CELL]
    name, style = FORGOTTEN_CELL
    body = {
        "target": {"type": "subgroup", "class": name, "subgroup": style, "labels": [*OBJECTS]},
        "data": {
            "forget": _drawn(folder, "fish", [FORGOTTEN_CELL], 200, TRAINING_SEED),
            "retain": _drawn(folder, "others", others, 20, TRAINING_SEED),
            "forget_test": _drawn(folder, "held-out-fish", [FORGOTTEN_CELL], 120, HELD_OUT_SEED),
            "retain_test": _drawn(folder, "held-out-others", others, 25, HELD_OUT_SEED),
            "evaluation": [
                {
                    "name": "shapes",
                    "dataset": _drawn(folder, "held-out-shapes", cells(SHAPES), 10, HELD_OUT_SEED),
                }
            ],
        },
    }
    return Bench(demo_subgroup(out), body, "target")


def cifar_bench(out: Path, images: Path) -> Bench:
    """Return CIFAR-10's horses."""
    folder, others = out / "data", [name for name in CIFAR if name != CIFAR_CLASS]
    body = {
        "target": {
            "type": "class",
            "class": CIFAR_CLASS,
            "synonyms": CIFAR_SYNONYMS[CIFAR_CLASS],
            "labels": list(CIFAR),
        },
        "data": {
            "forget": _copied(folder / "horses", images / "train", [CIFAR_CLASS], FORGET),
            "retain": _copied(folder / "not-horses", images / "train", others, RETAIN),
            "evaluation": [
                {
                    "name": "cifar10",
                    "dataset": _copied(folder / "cifar10-test", images / "test", CIFAR, TESTED),
                }
            ],
        },
    }
    return Bench(cifar(out, images / "train"), body, "cifar10")


BENCHES: dict[str, Callable[[Path, Path], Bench]] = {
    "class": class_bench,
    "subgroup": subgroup_bench,
    "cifar": cifar_bench,
}


def _drawn(folder: Path, name: str, wanted: list[Cell], count: int, seed: int) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{count}-{seed}.zip"
    if not path.exists():
        write_archive(path, wanted, count, seed)
    return str(path)


def _copied(folder: Path, images: Path, names: Iterable[str], count: int) -> str:
    for name in names:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for path in sorted((images / name).iterdir())[:count]:
            if not (folder / name / path.name).exists():
                shutil.copyfile(path, folder / name / path.name)
    return str(folder)


class Remembered:
    """`relearn`, which finds what it has done before: original and gold are the same in every
    job.
    """

    def __init__(self, relearn: Callable[[Subject, Lesson, int, int], Trace]) -> None:
        self._relearn = relearn
        self._kept: dict[str, Trace] = {}

    def __call__(self, subject: Subject, lesson: Lesson, k: int, seed: int = 0) -> Trace:
        """Return what `relearn` returns."""
        digest = hashlib.sha256(f"{lesson.labels}:{lesson.template}:{k}:{seed}".encode())
        parts = (lesson.tuning, lesson.held_out, lesson.retained)
        for tensor in (
            *subject.clip.model.state_dict().values(),
            *(t for pictures in parts for t in pictures),
        ):
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        key = digest.hexdigest()
        if key not in self._kept:
            self._kept[key] = self._relearn(subject, lesson, k, seed)
        return self._kept[key]


def report_of(bench: Bench, method: Mapping[str, Any], seed: int, out: Path) -> Report | str:
    """Return the report of one job, or why there is none; from the folder where the same job ran
    before.
    """
    request = bench.body | {
        "model": {"source": f"local-dir:{bench.pair.original}"},
        "method": method,
        "audit": {"level": "thorough", "reference": {"source": f"local-dir:{bench.pair.gold}"}},
        "seed": seed,
    }
    weights = [
        file_sha256(model / "open_clip_model.safetensors")
        for model in (bench.pair.original, bench.pair.gold)
    ]
    key = hashlib.sha256(json.dumps([request, weights], sort_keys=True).encode()).hexdigest()[:16]
    kept = out / "reports" / f"{key}.json"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(_run(request, Storage(f"file://{(out / 'objects').resolve()}")))
    text = kept.read_text()
    return Report.model_validate_json(text) if text.startswith("{") else text


def _run(request: Mapping[str, Any], storage: Storage) -> str:
    spec = resolve_paths(ErasureRequest.model_validate(request), Settings(_env_file=None))
    storage.delete(
        spec.job_prefix
    )  # a job that goes on from another's checkpoints is none of its own
    with tempfile.TemporaryDirectory() as scratch:
        try:
            run_pipeline(spec, storage, Silent(), Path(scratch), "cpu")
            return storage.get(f"{spec.attempt_prefix}/report.json").decode()
        except JobFailure as failure:
            return f"{failure.code}: {failure.detail}"


Row = dict[str, float | None]
"""Column -> value."""
COLUMNS = {
    "forget": ("forget_recall", True),
    "rest": ("retain_accuracy", True),
    "worst prompt": ("worst_prompt_recall", True),
    "learnt again": ("relearn_recall_16", True),
    "AIN": ("relearn_ratio", False),
    "5 examples": ("prototype_recall", True),
    "LPL": ("probe_leakage", False),
    "ToW": ("tow", False),
    "old text": ("original_text_recall", True),
    "old image": ("original_image_recall", True),
    "RMIA": ("rmia_auc", False),
}
"""Column -> (measure, whether it is a share and shown in %)."""
GAP = "AUC gap"


def rows_of(report: Report, place: str) -> dict[str, Row]:
    """Return the rows of the unlearned model, the original and the gold of one report."""
    taken = {
        m.name: m
        for m in report.measures
        if m.where == place or m.name in ("membership_auc", "rmia_auc")
    }
    rows: dict[str, Row] = {}
    for model in ("unlearned", "original", "reference"):
        row = {column: _value(taken.get(name), model) for column, (name, _) in COLUMNS.items()}
        own, gold = (_value(taken.get("membership_auc"), which) for which in (model, "reference"))
        row[GAP] = None if own is None or gold is None else abs(own - gold)
        rows[model] = row
    steps = taken.get("relearn_steps")
    if steps and steps.original and steps.reference:
        rows["original"]["AIN"] = steps.original.value / max(1.0, steps.reference.value)
    rows["original"]["LPL"] = 1.0
    rows["reference"] |= {"AIN": 1.0, "LPL": 0.0, "ToW": 1.0}
    return rows


def _value(measure: Measure | None, model: str) -> float | None:
    value: Value | None = getattr(measure, model) if measure else None
    return value.value if value else None


def seconds_of(report: Report) -> float:
    """Return what the method took, without loading, measuring and writing."""
    return sum(stage.seconds for stage in report.stages if stage.stage not in OVERHEAD)


def cell(values: list[float | None], *, percent: bool) -> str:
    """Return the mean, and the range where there is one."""
    known = [100 * value if percent else value for value in values if value is not None]
    if not known:
        return "–"
    digits = 1 if percent else 2
    low, middle, high = (f"{value:.{digits}f}" for value in (min(known), mean(known), max(known)))
    return middle if low == high else f"{middle} [{low}, {high}]"


def line(title: str, rows: list[Row], tail: tuple[str, str]) -> str:
    """Return a row of the table."""
    shown = [
        cell([row[column] for row in rows], percent=percent)
        for column, (_, percent) in COLUMNS.items()
    ]
    shown.append(cell([row[GAP] for row in rows], percent=False))
    return f"| {title} | {' | '.join((*shown, *tail))} |"


def table(name: str, bench: Bench, seeds: list[int], out: Path) -> list[str]:
    """Run every method that can do what is asked, and return the table; each line is printed as
    it comes.
    """
    head = ["", *COLUMNS, GAP, "verdict", "s"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for title, method in METHODS.items():
        if bench.body["target"]["type"] == "subgroup" and method["name"] in BY_NAME:
            continue
        own = seeds[:1] if method["name"] in WITHOUT_SEED else seeds
        start = time.perf_counter()
        results = [report_of(bench, method, seed, out) for seed in own]
        reports = [result for result in results if isinstance(result, Report)]
        if len(lines) == 2 and reports:
            rows = rows_of(reports[0], bench.place)
            lines += [
                line("**original**", [rows["original"]], ("", "")),
                line("**gold**", [rows["reference"]], ("", "")),
            ]
        failed = [result for result in results if isinstance(result, str)]
        if reports:
            passed = sum(report.verdict == "passed" for report in reports)
            tail = f"{passed} of {len(own)}" + (f"; {failed[0]}" if failed else "")
            measured = [rows_of(report, bench.place)["unlearned"] for report in reports]
            lines.append(line(title, measured, (tail, f"{mean(map(seconds_of, reports)):.0f}")))
        else:
            lines.append(f"| {title} | {' | '.join('–' * (len(COLUMNS) + 1))} | {failed[0]} | |")
        print(f"{name}: {title}, {time.perf_counter() - start:.0f} s\n{lines[-1]}", flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("bench-data/gold"))
    parser.add_argument("--images", type=Path, default=Path("bench-data/cifar10"))
    parser.add_argument("--pairs", nargs="+", choices=BENCHES, default=[*BENCHES])
    parser.add_argument(
        "--seeds",
        nargs="+",
        type=int,
        default=[0, 1, 2],
        help="of the methods; pairs are trained with 0",
    )
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    relearning.relearn = Remembered(relearning.relearn)
    tables = {
        name: partial(table, name, BENCHES[name](args.out, args.images)) for name in args.pairs
    }
    print(
        f"{platform.machine()}, {args.threads} thread, Python {platform.python_version()}, "
        "torch "
        f"{torch.__version__}"
    )
    for name, lines in tables.items():
        print(
            f"\n## {name}, seeds {args.seeds}\n\n" + "\n".join(lines(args.seeds, args.out)),
            flush=True,
        )


if __name__ == "__main__":
    main()
