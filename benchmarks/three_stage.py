"""Claim: what each preset and part of the three-stage method forgets and what it costs, on held-out
real images.

    python -m benchmarks.three_stage [--models vit-xs-32 rn-mini] [--tasks sketch/elephant ...
    cifar10/horse]
                                     [--methods nothing DELETE robust ...] [--seeds 0] [--coarse |
                                     --chain] [--out FILE.json]

A task `<domain>/<class>` forgets one PACS domain's images of a class and keeps the class in the
other domains; `cifar10/<class>` forgets a whole class. The method gets `--forget` and `--retain`
training images; a quarter of each is set aside to choose the mixing weight. All accuracies are
top-1 on test images, in percent, uncapped:

    target    what is forgotten
    siblings  the same class in the other domains (PACS tasks)
    others    the other classes of the same data set
    transfer  the other data set, without the forgotten class
    worst     the target under the worst of six prompts, none of which the method ever sees
    probe     the target by a linear probe on the features: two halves of the test images, each read
        by a probe fitted on the other

    Score = 100 / (1 + m) * { (1 - target / target_0) + sum over the m kept columns of min(1,
    accuracy / accuracy_0) }

after the paper's (arXiv 2506.03117), which `nothing` passes with 100 m / (1 + m).

`--coarse` gives the method the names of kinds (animal, instrument, building, human) in place of
those of the PACS classes: what is to be forgotten is then known by its images alone. It is
measured under the fine names. `--chain` erases all tasks one after the other from one model, and
after each measures each earlier one again; what was forgotten is no longer among what stays.
Each erasure gets the forget images of those before it, as `data.earlier` brings them;
`--forgetful` keeps them from it. `nothing` shows the original under the columns that follow the
last erasure. `--spare` measures on up to 60 images of each folder of `train` that no method
gets: some cells have few images in `test`. `--proxy N` adds N unlabelled training images of the
other data set, as `data.proxy` brings them: a sample of what else the model sees."""

import argparse
import json
import platform
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.bench_images import (
    Item,
    answers,
    embed,
    frozen_clip,
    image_set,
    items,
    labels_of,
    require_models,
    share,
)
from shared.schemas.request import ErasureRequest, Thresholds
from worker.clip import Clip
from worker.data.images import ImageSet
from worker.evaluation.measures.representation import probe_hits
from worker.methods import stages_of
from worker.methods.frame import Erasure, MemoryStore, MethodData
from worker.ports import Silent

TASKS = ("sketch/elephant", "photo/dog", "cartoon/horse", "art_painting/giraffe", "cifar10/horse")
HELD_OUT_PROMPTS = (
    "{}",
    "a drawing of a {}.",
    "a sketch of a {}.",
    "a picture of the {}.",
    "a black and white sketch of a {}.",
    "a simple line picture showing {}",
)
KINDS = {
    "dog": "animal",
    "elephant": "animal",
    "giraffe": "animal",
    "guitar": "instrument",
    "horse": "animal",
    "house": "building",
    "person": "human",
}
SPARE = 60
"""Images of a folder that `--spare` measures on, at most."""
BASELINES = {
    "ascent": "gradient_ascent",
    "DELETE": "delete",
    "SLUG": "slug",
    "null space": "null_space",
}
"""Other methods, by their names in a request, with their defaults. The null space works from
names: whole classes alone.
"""
METHODS: dict[str, dict[str, Any] | None] = {
    "nothing": None,
    "forgetting alone": {"reminding": False, "restoring": False},
    "faithful": {"preset": "faithful"},
    "faithful, no alignment": {"preset": "faithful", "alignment": "off"},
    "robust": {},
    "earlier robust": {
        "directions": "random",
        "prior": 0.0,
        "depth": 0.5,
        "layers": 10,
        "rank": 8,
        "margin": 4.0,
    },
    "no directions": {"directions": "random"},
    "no prior": {"prior": 0.0},
    "no guard": {"guard": 0.0},
    "no distillation": {"distillation": 0.0},
    "no contrastive": {"contrastive": 0.0},
    "no forgetting": {"forgetting": False},
    "no averaging": {"ema_decay": 0.0},
    "no restoring": {"restoring": False},
    "all layers": {"selection": "all"},
    "plain Fisher": {"selection": "fisher"},
    "full weights": {"adapter": "full", "learning_rate": 1e-4},
    "BatchNorm alignment": {"alignment": "batch_norm"},
    "token alignment": {"alignment": "tokens"},
}
DEFAULT_METHODS = (
    "nothing",
    *BASELINES,
    "faithful",
    "robust",
    "no directions",
    "no prior",
    "no guard",
    "no distillation",
    "no forgetting",
    "no restoring",
)


class Row(NamedTuple):
    """One line of the table."""

    model: str
    task: str
    method: str
    seed: int
    accuracy: dict[str, float]
    score: float
    worst: float
    probe: float
    alpha: float | None
    seconds: tuple[float, ...]


class Run(NamedTuple):
    """An erasure that was run."""

    erasure: Erasure
    seconds: tuple[float, ...]


class Cell(NamedTuple):
    """What is erased, and in which words."""

    task: str
    coarse: bool = False
    gone: tuple[str, ...] = ()
    """Tasks that were erased before."""

    @property
    def source(self) -> str:
        """A PACS domain, or `cifar10`."""
        return self.task.split("/")[0]

    @property
    def label(self) -> str:
        """The fine name of the class."""
        return self.task.split("/")[1]

    def word(self, label: str) -> str:
        """Return the name of a class that the method is told."""
        return KINDS.get(label, label) if self.coarse and self.source != "cifar10" else label

    def labels(self) -> tuple[str, ...]:
        """Return the label set that the method is told."""
        return tuple(dict.fromkeys(map(self.word, labels_of(self.source))))


def belongs(item: Item, task: str) -> bool:
    """True for images of what a task erases."""
    return f"{item.source}/{item.label}" == task


def own(item: Item, cell: Cell) -> bool:
    """True for images of the data set of which a cell erases a part."""
    return labels_of(item.source) == labels_of(cell.source)


def named(cell: Cell, chosen: list[Item]) -> ImageSet:
    """Return images as the engine takes them, under the names that the method is told."""
    names = cell.labels()
    numbers = tuple(names.index(cell.word(item.label)) for item in chosen)
    return ImageSet("benchmark", "", tuple(item.path for item in chosen), numbers, names)


def unnamed(chosen: list[Item]) -> ImageSet:
    """Return images whose class is not told."""
    return ImageSet("benchmark", "", tuple(item.path for item in chosen), (0,) * len(chosen), ("",))


def set_apart(pool: list[Item], forget: int) -> tuple[list[Item], list[Item]]:
    """Return (pool, tests): of each folder up to `SPARE` images are for tests, beyond the
    `forget` that a method may want of it.
    """
    folders: dict[str, list[Item]] = {}
    for item in random.Random(0).sample(pool, len(pool)):
        folders.setdefault(f"{item.source}/{item.label}", []).append(item)
    tests = [item for folder in folders.values() for item in folder[forget : forget + SPARE]]
    held = set(tests)
    return [item for item in pool if item not in held], tests


class Draw(NamedTuple):
    """How many training images a method gets, and of what."""

    forget: int = 96
    retain: int = 192
    proxy: int = 0
    forgetful: bool = False
    """True: no image of what was erased before."""


def training_data(cell: Cell, pool: list[Item], draw: Draw, seed: int) -> MethodData:
    """Draw what the method gets: a quarter of each side is for calibration. Half of what a PACS
    task keeps is siblings.
    """
    shuffled, retain, tasks = (
        random.Random(seed).sample(pool, len(pool)),
        draw.retain,
        (cell.task, *cell.gone),
    )
    gone, *before = (
        [item for item in shuffled if belongs(item, task)][: draw.forget] for task in tasks
    )
    rest = [
        item
        for item in shuffled
        if own(item, cell) and not any(belongs(item, task) for task in tasks)
    ]
    siblings = [item for item in rest if item.label == cell.label][: retain // 2]
    others = [item for item in rest if item.label != cell.label][: retain - len(siblings)]
    kept = random.Random(seed).sample(siblings + others, len(siblings) + len(others))
    proxy = [item for item in shuffled if not own(item, cell)][: draw.proxy]
    return MethodData(
        forget=named(cell, gone[len(gone) // 4 :]),
        retain=named(cell, kept[len(kept) // 4 :]),
        calibration_forget=named(cell, gone[: len(gone) // 4]),
        calibration_retain=named(cell, kept[: len(kept) // 4]),
        proxy=unnamed(proxy) if proxy else None,
        earlier=unnamed([item for images in before for item in images])
        if before and not draw.forgetful
        else None,
    )


def request_of(cell: Cell, method: str, seed: int) -> ErasureRequest:
    """Return the request that a row stands for."""
    kind = (
        {"type": "class"}
        if cell.source == "cifar10"
        else {"type": "subgroup", "subgroup": cell.source}
    )
    target = kind | {"class": cell.word(cell.label), "labels": cell.labels()}
    parameters = METHODS.get(method) or {}
    body = {"name": BASELINES.get(method, "three_stage"), "parameters": parameters}
    data = {"forget": "forget", "retain": "retain"}
    return ErasureRequest.model_validate(
        {"model": {"id": "benchmark"}, "target": target, "method": body, "data": data, "seed": seed}
    )


def erased(
    clip: Clip, cell: Cell, method: str, data: MethodData, seed: int
) -> tuple[Erasure, tuple[float, ...]]:
    """Erase from a copy of the model, as the pipeline would; return the erasure and the seconds
    of each stage.
    """
    request = request_of(cell, method, seed)
    erasure = Erasure.of(
        request,
        clip.frozen_twin(),
        thresholds=Thresholds(max_forget_accuracy=0.05),
        labels=cell.labels(),
        data=data,
        store=MemoryStore(),
        progress=Silent(),
    )
    seconds = []
    for stage in stages_of(request):
        start = time.perf_counter()
        stage.run(erasure)
        seconds.append(time.perf_counter() - start)
    return erasure, tuple(seconds)


class Measured(NamedTuple):
    """What test images say of a model."""

    accuracy: dict[str, float]
    worst: float
    probe: float


def measured(clip: Clip, cell: Cell, tests: list[Item], embeddings: Tensor) -> Measured:
    """Return the columns of a cell, in percent, of unit embeddings [N, d] of the test images."""
    right = answers(clip, embeddings, tests, "a photo of a {}.")

    def target(item: Item) -> bool:
        return belongs(item, cell.task)

    def stays(item: Item) -> bool:
        return not any(belongs(item, task) for task in (cell.task, *cell.gone))

    accuracy = {
        "target": share(right, tests, target),
        "siblings": share(
            right, tests, lambda item: own(item, cell) and item.label == cell.label and stays(item)
        ),
        "others": share(
            right, tests, lambda item: own(item, cell) and item.label != cell.label and stays(item)
        ),
        "transfer": share(
            right,
            tests,
            lambda item: not own(item, cell) and item.label != cell.label and stays(item),
        ),
    }
    worst = max(
        share(answers(clip, embeddings, tests, prompt), tests, target)
        for prompt in HELD_OUT_PROMPTS
    )
    present = {name: value for name, value in accuracy.items() if value == value}
    return Measured(present, worst, share(probed(embeddings, tests, cell), tests, target))


def probed(embeddings: Tensor, tests: list[Item], cell: Cell) -> Tensor:
    """Return which test images [N] of the cell's data set the audit's linear probe gets right,
    fitted on the other half.
    """
    labels, right = labels_of(cell.source), torch.zeros(len(tests), dtype=torch.bool)
    where = torch.tensor([index for index, item in enumerate(tests) if own(item, cell)])
    truth = torch.tensor([labels.index(tests[index].label) for index in where.tolist()])
    right[where] = probe_hits(embeddings[where].float().cpu(), truth)
    return right


def score(before: dict[str, float], after: dict[str, float]) -> float:
    """Return the Score that the module's docstring defines."""
    kept = [min(1.0, after[name] / before[name]) for name in before if name != "target"]
    return 100 * (1 - after["target"] / before["target"] + sum(kept)) / (1 + len(kept))


class Bench(NamedTuple):
    """A model and the images that it is tried on."""

    model: str
    clip: Clip
    tests: list[Item]
    pixels: Tensor
    embeddings: Tensor
    """Of the test images, by the original model: [N, d]."""
    pool: list[Item]
    args: argparse.Namespace

    def row(
        self, cell: Cell, method: str, seed: int, before: Measured, after: Measured, run: Run | None
    ) -> Row:
        """Return one line of the table."""
        alpha = run.erasure.notes.get("restoring", {}).get("alpha") if run else None
        points = score(before.accuracy, after.accuracy)
        return Row(
            self.model,
            cell.task,
            method,
            seed,
            after.accuracy,
            points,
            after.worst,
            after.probe,
            alpha,
            run.seconds if run else (),
        )

    def measure(self, clip: Clip, *cells: Cell) -> list[Measured]:
        """Return the columns of some cells for a model."""
        embeddings = self.embeddings if clip is self.clip else embed(clip, self.pixels)
        return [measured(clip, cell, self.tests, embeddings) for cell in cells]

    def erase(self, clip: Clip, cell: Cell, method: str, seed: int) -> Run:
        """Erase a cell from a copy of a model."""
        args = self.args
        data = training_data(
            cell, self.pool, Draw(args.forget, args.retain, args.proxy, args.forgetful), seed
        )
        return Run(*erased(clip, cell, method, data, seed))


def benches(args: argparse.Namespace) -> Iterator[Bench]:
    """Load each model, and the images once for each."""
    tests, pool = items(args.data, "test", args.cifar), items(args.data, "train", 1000)
    if args.spare:
        pool, tests = set_apart(pool, args.forget)
    for model in args.models:
        clip = frozen_clip(args.data / "models" / model, args.device)
        pixels = torch.cat([image_set([item]).pixels(clip.transform).bfloat16() for item in tests])
        yield Bench(model, clip, tests, pixels, embed(clip, pixels), pool, args)


def rows(bench: Bench) -> Iterator[Row]:
    """Run every method on every task, each from the original model."""
    args = bench.args
    for cell in (Cell(task, args.coarse) for task in args.tasks):
        (before,) = bench.measure(bench.clip, cell)
        for method in args.methods:
            if method == "nothing":
                yield bench.row(cell, method, 0, before, before, None)
            elif method != "null space" or cell.source == "cifar10":
                for seed in args.seeds:
                    run = bench.erase(bench.clip, cell, method, seed)
                    (after,) = bench.measure(run.erasure.clip, cell)
                    yield bench.row(cell, method, seed, before, after, run)


def chain_rows(bench: Bench) -> Iterator[Row]:
    """Erase all tasks one after the other; after each, measure it and each earlier one.
    `nothing` belongs to the last rows.
    """
    args = bench.args
    if "nothing" in args.methods:
        cells = chained(args.tasks)
        for cell, before in zip(cells, bench.measure(bench.clip, *cells), strict=True):
            yield bench.row(cell, "nothing", 0, before, before, None)
    for method in (name for name in args.methods if name != "nothing"):
        for seed in args.seeds:
            clip = bench.clip
            for last in range(len(args.tasks)):
                done = args.tasks[: last + 1]
                run = bench.erase(clip, Cell(done[-1], args.coarse, tuple(done[:-1])), method, seed)
                clip, cells = run.erasure.clip, chained(done)
                each = zip(
                    cells,
                    bench.measure(bench.clip, *cells),
                    bench.measure(clip, *cells),
                    strict=True,
                )
                for cell, before, after in each:
                    yield bench.row(cell, f"{method}, after {last + 1}", seed, before, after, run)


def chained(tasks: Sequence[str]) -> list[Cell]:
    """Return the cells of some tasks, each as it is measured when all the others are erased,
    too.
    """
    return [Cell(task, gone=tuple(set(tasks) - {task})) for task in tasks]


def show(row: Row) -> None:
    """Print one line of the table."""
    columns = " ".join(
        f"{row.accuracy.get(name, float('nan')):8.1f}"
        for name in ("target", "siblings", "others", "transfer")
    )
    seconds = " + ".join(f"{s:.1f}" for s in row.seconds)
    name = f"{row.model:10} {row.task:20} {row.method:22} {row.seed:2}"
    print(
        (
            f"{name} {columns} {row.worst:6.1f} {row.probe:6.1f} {row.score:6.1f} "
            f"{row.alpha or '-':>5}  {seconds}"
        ),
        flush=True,
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("bench-data"))
    parser.add_argument("--models", nargs="+", default=["vit-xs-32", "rn-mini"])
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument(
        "--methods", nargs="+", default=list(DEFAULT_METHODS), choices=[*METHODS, *BASELINES]
    )
    parser.add_argument("--coarse", action="store_true", help="tell the method kinds, not classes")
    parser.add_argument("--chain", action="store_true", help="erase all tasks one after the other")
    parser.add_argument(
        "--forgetful", action="store_true", help="with --chain: show no image of an earlier erasure"
    )
    parser.add_argument(
        "--proxy",
        type=int,
        default=Draw().proxy,
        help="unlabelled images of the other data set for the method",
    )
    parser.add_argument(
        "--spare", action="store_true", help="measure on images of `train` that no method gets"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument(
        "--forget", type=int, default=Draw().forget, help="training images of what is forgotten"
    )
    parser.add_argument(
        "--retain", type=int, default=Draw().retain, help="training images of what stays"
    )
    parser.add_argument("--cifar", type=int, default=50, help="CIFAR-10 test images per class")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, help="also write the rows as JSON")
    args = parser.parse_args()
    require_models(parser, args.data)
    torch.set_num_threads(args.threads)
    print(
        f"{platform.processor() or platform.machine()}, {args.threads} threads, torch "
        f"{torch.__version__}"
    )
    print(
        f"{'model':10} {'task':20} {'method':22} {'':2}   target siblings   others transfer  "
        "worst "
        " probe  score alpha  seconds"
    )
    done = []
    for bench in benches(args):
        for row in chain_rows(bench) if args.chain else rows(bench):
            show(row)
            done.append(row._asdict())
            if args.out:
                args.out.write_text(json.dumps(done, indent=1))


if __name__ == "__main__":
    main()
