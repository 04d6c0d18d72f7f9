"""Claim: what each preset and part of the three-stage method forgets and what it costs, on held-out real images.

    python -m benchmarks.three_stage [--models vit-xs-32 rn-mini] [--tasks sketch/elephant ... cifar10/horse]
                                     [--methods nothing ascent faithful robust ...] [--seeds 0] [--out FILE.json]

A task `<domain>/<class>` forgets one PACS domain's images of a class and keeps the class in the other domains; `cifar10/<class>`
forgets a whole class. The method gets `--forget` and `--retain` training images; a quarter of each is set aside to choose the
mixing weight. All accuracies are top-1 on test images, in percent, uncapped:

    target    what is forgotten
    siblings  the same class in the other domains (PACS tasks)
    others    the other classes of the same data set
    transfer  the other data set, without the forgotten class
    worst     the target under the worst of six prompts, none of which the method ever sees

    Score = 100 / (1 + m) * { (1 - target / target_0) + sum over the m kept columns of min(1, accuracy / accuracy_0) }

after the paper's (arXiv 2506.03117), which `nothing` passes with 100 m / (1 + m).
"""

import argparse
import json
import platform
import random
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.bench_images import Item, answers, embed, image_set, items, labels_of, share
from shared.schemas.request import ErasureRequest, Thresholds
from worker.clip import Clip
from worker.clip.checkpoint import load_clip
from worker.methods.frame import Erasure, MemoryStore, MethodData
from worker.methods.three_stage import stages
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
METHODS: dict[str, dict[str, Any] | None] = {
    "nothing": None,
    "ascent": {"reminding": False, "restoring": False},
    "faithful": {"preset": "faithful"},
    "faithful, no alignment": {"preset": "faithful", "alignment": "off"},
    "robust": {},
    "no guard": {"guard": 0.0},
    "no distillation": {"distillation": 0.0},
    "no contrastive": {"contrastive": 0.0},
    "no forgetting": {"forgetting": False},
    "no averaging": {"ema_decay": 0.0},
    "no restoring": {"restoring": False},
    "all layers": {"selection": "all"},
    "plain Fisher": {"selection": "fisher"},
    "full weights": {"adapter": "full", "learning_rate": 1e-4},
    "with alignment": {"alignment": "batch_norm"},
}
DEFAULT_METHODS = (
    "nothing",
    "ascent",
    "faithful",
    "robust",
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
    alpha: float | None
    seconds: tuple[float, ...]


def training_data(task: str, pool: list[Item], forget: int, retain: int, seed: int) -> MethodData:
    """Draw what the method gets: a quarter of each side is for calibration. Half of what a PACS task keeps is siblings."""
    source, label = task.split("/")
    shuffled = random.Random(seed).sample(pool, len(pool))
    own = [item for item in shuffled if labels_of(item.source) == labels_of(source)]
    gone = [item for item in own if item.source == source and item.label == label][:forget]
    siblings = [item for item in own if item.label == label and item.source != source][: retain // 2]
    others = [item for item in own if item.label != label][: retain - len(siblings)]
    kept = random.Random(seed).sample(siblings + others, len(siblings) + len(others))
    return MethodData(
        forget=image_set(gone[len(gone) // 4 :]),
        retain=image_set(kept[len(kept) // 4 :]),
        calibration_forget=image_set(gone[: len(gone) // 4]),
        calibration_retain=image_set(kept[: len(kept) // 4]),
    )


def erasure_of(clip: Clip, task: str, parameters: dict[str, Any], data: MethodData, seed: int) -> Erasure:
    """Return the erasure as the pipeline would set it up."""
    source, label = task.split("/")
    kind = {"type": "class"} if source == "cifar10" else {"type": "subgroup", "subgroup": source}
    request = ErasureRequest.model_validate(
        {
            "model": {"id": "benchmark"},
            "target": kind | {"class": label, "labels": labels_of(source)},
            "method": {"name": "three_stage", "parameters": parameters},
            "data": {"forget": "forget", "retain": "retain"},
            "seed": seed,
        }
    )
    return Erasure.of(
        request,
        clip.frozen_twin(),
        thresholds=Thresholds(max_forget_accuracy=0.05),
        labels=labels_of(source),
        data=data,
        store=MemoryStore(),
        progress=Silent(),
    )


def measured(clip: Clip, task: str, tests: list[Item], pixels: Tensor) -> tuple[dict[str, float], float]:
    """Return the accuracies of a task and the worst of the held-out prompts."""
    source, label = task.split("/")
    embeddings = embed(clip, pixels)
    right = answers(clip, embeddings, tests, "a photo of a {}.")

    def own(item: Item) -> bool:
        return labels_of(item.source) == labels_of(source)

    def gone(item: Item) -> bool:
        return item.source == source and item.label == label

    accuracy = {
        "target": share(right, tests, gone),
        "siblings": share(right, tests, lambda item: own(item) and item.label == label and item.source != source),
        "others": share(right, tests, lambda item: own(item) and item.label != label),
        "transfer": share(right, tests, lambda item: not own(item) and item.label != label),
    }
    worst = max(share(answers(clip, embeddings, tests, prompt), tests, gone) for prompt in HELD_OUT_PROMPTS)
    return {name: value for name, value in accuracy.items() if value == value}, worst


def score(before: dict[str, float], after: dict[str, float]) -> float:
    """Return the Score that the module's docstring defines."""
    kept = [min(1.0, after[name] / before[name]) for name in before if name != "target"]
    return 100 * (1 - after["target"] / before["target"] + sum(kept)) / (1 + len(kept))


def rows(args: argparse.Namespace) -> Iterator[Row]:
    """Run everything that the command line asks for."""
    tests, pool = items(args.data, "test", args.cifar), items(args.data, "train", 1000)
    for model in args.models:
        with TemporaryDirectory() as scratch:
            clip = load_clip(f"local-dir:{args.data / 'models' / model}", scratch=Path(scratch), device=args.device)
        clip.model.requires_grad_(False)
        pixels = torch.cat([image_set([item]).pixels(clip.transform).bfloat16() for item in tests])
        for task in args.tasks:
            before, worst = measured(clip, task, tests, pixels)
            for method in args.methods:
                for seed in args.seeds:
                    parameters = METHODS[method]
                    if parameters is None:
                        yield Row(model, task, method, seed, before, score(before, before), worst, None, ())
                        break
                    data = training_data(task, pool, args.forget, args.retain, seed)
                    erasure = erasure_of(clip, task, parameters, data, seed)
                    seconds = []
                    for stage in stages(erasure.parameters):
                        start = time.perf_counter()
                        stage.run(erasure)
                        seconds.append(time.perf_counter() - start)
                    after, worst_after = measured(erasure.clip, task, tests, pixels)
                    alpha = erasure.notes.get("restoring", {}).get("alpha")
                    yield Row(
                        model, task, method, seed, after, score(before, after), worst_after, alpha, tuple(seconds)
                    )


def show(row: Row) -> None:
    """Print one line of the table."""
    columns = " ".join(
        f"{row.accuracy.get(name, float('nan')):8.1f}" for name in ("target", "siblings", "others", "transfer")
    )
    seconds = " + ".join(f"{s:.1f}" for s in row.seconds)
    name = f"{row.model:10} {row.task:20} {row.method:22} {row.seed:2}"
    print(f"{name} {columns} {row.worst:6.1f} {row.score:6.1f} {row.alpha or '-':>5}  {seconds}", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("bench-data"))
    parser.add_argument("--models", nargs="+", default=["vit-xs-32", "rn-mini"])
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--methods", nargs="+", default=list(DEFAULT_METHODS), choices=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--forget", type=int, default=96, help="training images of what is forgotten")
    parser.add_argument("--retain", type=int, default=192, help="training images of what stays")
    parser.add_argument("--cifar", type=int, default=50, help="CIFAR-10 test images per class")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, help="also write the rows as JSON")
    args = parser.parse_args()
    if not (args.data / "models").is_dir():
        parser.error(f"--data: there is no {args.data}/models; benchmarks/README.md says what belongs there")
    torch.set_num_threads(args.threads)
    print(f"{platform.processor() or platform.machine()}, {args.threads} threads, torch {torch.__version__}")
    print(
        f"{'model':10} {'task':20} {'method':22} {'':2}   target siblings   others transfer  worst  score alpha  seconds"
    )
    done = []
    for row in rows(args):
        show(row)
        done.append(row._asdict())
        if args.out:
            args.out.write_text(json.dumps(done, indent=1))


if __name__ == "__main__":
    main()
