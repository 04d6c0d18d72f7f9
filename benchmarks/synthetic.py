"""Claim: what each mode of the synthetic method forgets and what it costs, on real test images that no part of it sees.

    python -m benchmarks.synthetic [--models vit-xs-32 rn-mini] [--classes horse airplane cat]
                                   [--methods nothing null_space calibrated samples_only] [--seeds 0] [--cifar 1000]

One row for each model, class and method, top-1 in percent on CIFAR-10's test set (`--cifar` images of each class) and on PACS:

    forget    recall of the forgotten class
    rest      the nine other classes
    pacs      PACS without the forgotten class
    worst     recall under the worst of six prompts that no part of the method uses, of those under which the original recognises
              the class at least half as often as under its usual prompt
    image     recall and rest with the original image tower put back
    text      recall with the original text tower put back
    probe     recall of a linear probe on the image features, trained on 35 images of each class

`null_space` is the baseline: the class's direction, centred on the label set, taken out of the image embeddings at right angles.
`faithful` is there, too; with its 3,000 iterations a sample it takes hours on a CPU.
"""

import argparse
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.bench_images import CIFAR, Item, answers, embed, image_set, items, share
from shared.errors import JobFailure
from shared.schemas.request import ErasureRequest, Thresholds
from worker.clip import Clip
from worker.clip.checkpoint import load_clip
from worker.clip.classifier import template_embeddings
from worker.methods.frame import Erasure, MethodData
from worker.methods.synthetic import stages
from worker.methods.synthetic.closed_form import first_direction
from worker.methods.synthetic.last_layers import transform_images
from worker.methods.synthetic.vocabulary import TEMPLATES
from worker.ports import Silent

USUAL = "a photo of a {}."
UNSEEN = (
    "a snapshot of a {}",
    "an old picture with a {} in it",
    "a low resolution photo of a {}.",
    "a bad photo of the {}.",
    "i love my {}.",
    "look at this {}!",
)
METHODS: dict[str, dict[str, Any] | None] = {
    "nothing": None,
    "null_space": None,
    "calibrated": {},
    "samples_only": {"mode": "samples_only"},
    "faithful": {"mode": "faithful"},
}
PROBE_IMAGES, PROBE_STEPS, PROBE_DECAY = 35, 300, 1e-3


class Bench(NamedTuple):
    """A model and its view of all images."""

    clip: Clip
    tests: list[Item]
    pixels: Tensor
    embedded: Tensor
    """[N, d], of the tests by the original."""
    probe_pixels: Tensor
    probe_labels: Tensor


class Memory:
    """Keeps samples from one run to the next, as the object storage does for jobs."""

    def __init__(self) -> None:
        self._kept: dict[str, dict[str, Tensor]] = {}

    def load(self, key: str) -> dict[str, Tensor] | None:
        """Return what was saved."""
        return self._kept.get(key)

    def save(self, key: str, tensors: dict[str, Tensor]) -> None:
        """Keep it."""
        self._kept[key] = tensors


def bench_of(folder: Path, data: Path, cifar: int) -> Bench:
    """Load a model and embed every image with it."""
    with TemporaryDirectory() as scratch:
        clip = load_clip(f"local-dir:{folder}", scratch=Path(scratch))
    clip.model.requires_grad_(False)
    tests = items(data, "test", cifar)
    train = [item for item in items(data, "train", PROBE_IMAGES) if item.source == "cifar10"]
    pixels, probe = (
        torch.cat([image_set([i]).pixels(clip.transform).bfloat16() for i in part]) for part in (tests, train)
    )
    labels = torch.tensor([CIFAR.index(item.label) for item in train])
    return Bench(clip, tests, pixels, embed(clip, pixels), probe, labels)


def erasure_of(bench: Bench, label: str, parameters: dict[str, Any], seed: int, memory: Memory) -> Erasure:
    """Return the erasure as the pipeline would set it up for a request with names alone."""
    request = ErasureRequest.model_validate(
        {
            "model": {"id": "benchmark"},
            "target": {"type": "class", "class": label, "labels": CIFAR},
            "method": {"name": "synthetic", "parameters": parameters},
        }
    )
    return Erasure(
        clip=bench.clip.frozen_twin(),
        original=bench.clip,
        request=request,
        parameters=request.method.parsed(),
        thresholds=Thresholds(max_synthetic_accuracy=0.05),
        labels=CIFAR,
        data=MethodData(),
        store=memory,
        progress=Silent(),
        seed=seed,
    )


def null_space(clip: Clip, label: str) -> Clip:
    """Return a copy without the centred direction of the label in its image embeddings."""
    twin = clip.frozen_twin()
    texts = template_embeddings(clip, (label, *(name for name in CIFAR if name != label)), TEMPLATES)
    direction = first_direction(texts[0] - texts[1:].mean(dim=0))
    transform_images(
        twin.model, torch.eye(len(direction)) - torch.outer(direction, direction), torch.zeros_like(direction)
    )
    return twin


def edited(bench: Bench, label: str, method: str, seed: int, memory: Memory) -> Clip:
    """Return the model that a method leaves; JobFailure where it gives up."""
    parameters = METHODS[method]
    if method == "nothing":
        return bench.clip
    if parameters is None:
        return null_space(bench.clip, label)
    erasure = erasure_of(bench, label, parameters, seed, memory)
    for stage in stages(erasure.parameters):
        erasure.stage = stage.stage
        stage.run(erasure)
    return erasure.clip


def measured(bench: Bench, clip: Clip, label: str) -> dict[str, float]:
    """Return all columns of a row, in percent."""
    new = embed(clip, bench.pixels)

    def of(texts: Clip, images: Tensor, template: str) -> tuple[float, float, float]:
        right = answers(texts, images, bench.tests, template)
        return (
            share(right, bench.tests, lambda i: i.source == "cifar10" and i.label == label),
            share(right, bench.tests, lambda i: i.source == "cifar10" and i.label != label),
            share(right, bench.tests, lambda i: i.source != "cifar10" and i.label != label),
        )

    usual, _, _ = of(bench.clip, bench.embedded, USUAL)
    answered = [t for t in UNSEEN if of(bench.clip, bench.embedded, t)[0] >= usual / 2]
    forget, rest, pacs = of(clip, new, USUAL)
    image_back = of(clip, bench.embedded, USUAL)
    return {
        "forget": forget,
        "rest": rest,
        "pacs": pacs,
        "worst": max(of(clip, new, template)[0] for template in answered),
        "image": image_back[0],
        "image rest": image_back[1],
        "text": of(bench.clip, new, USUAL)[0],
        "probe": probe_recall(bench, clip, new, label),
    }


def probe_recall(bench: Bench, clip: Clip, embedded: Tensor, label: str) -> float:
    """Train a linear probe on image features and return the label's recall in percent."""
    train = embed(clip, bench.probe_pixels)
    weights = torch.zeros(len(CIFAR), train.shape[1], requires_grad=True)
    bias = torch.zeros(len(CIFAR), requires_grad=True)
    optimizer = torch.optim.Adam([weights, bias], lr=0.1)
    for _ in range(PROBE_STEPS):
        loss = F.cross_entropy(train @ weights.T + bias, bench.probe_labels) + PROBE_DECAY * weights.square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    wanted = torch.tensor([i.source == "cifar10" and i.label == label for i in bench.tests])
    with torch.no_grad():
        predicted = (embedded[wanted] @ weights.T + bias).argmax(dim=1)
    return 100 * (predicted == CIFAR.index(label)).float().mean().item()


def rows(args: argparse.Namespace) -> Iterator[str]:
    """Run everything that the command line asks for."""
    for model in args.models:
        bench, memory = bench_of(args.data / "models" / model, args.data, args.cifar), Memory()
        for label in args.classes:
            for method in args.methods:
                for seed in args.seeds if METHODS[method] is not None else args.seeds[:1]:
                    name = f"{model:10} {label:10} {method:13} {seed:4}"
                    start = time.perf_counter()
                    try:
                        clip = edited(bench, label, method, seed, memory)
                    except JobFailure as failure:
                        yield f"{name}  gave up: {failure.detail}"
                        continue
                    seconds = time.perf_counter() - start
                    values = measured(bench, clip, label)
                    yield f"{name} " + " ".join(f"{v:10.1f}" for v in values.values()) + f" {seconds:8.1f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("bench-data"))
    parser.add_argument("--models", nargs="+", default=["vit-xs-32", "rn-mini"])
    parser.add_argument("--classes", nargs="+", default=["horse", "airplane", "cat"], choices=CIFAR)
    default = ["nothing", "null_space", "calibrated", "samples_only"]
    parser.add_argument("--methods", nargs="+", default=default, choices=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--cifar", type=int, default=1000, help="CIFAR-10 test images of each class")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    if not (args.data / "models").is_dir():
        parser.error(f"--data: there is no {args.data}/models; benchmarks/README.md says what belongs there")
    torch.set_num_threads(args.threads)
    print(f"{platform.machine()}, {args.threads} threads, torch {torch.__version__}, {args.cifar} images of each class")
    columns = ("forget", "rest", "pacs", "worst", "image", "image rest", "text", "probe")
    print(f"{'model':10} {'class':10} {'method':13} seed " + " ".join(f"{c:>10}" for c in columns) + "  seconds")
    for row in rows(args):
        print(row, flush=True)


if __name__ == "__main__":
    main()
