"""Claim: what each mode of the synthetic method forgets and what it costs, on real test images that
no part of it sees.

    python -m benchmarks.synthetic [--models vit-xs-32 rn-mini] [--classes horse airplane cat]
    [--cifar 1000] [--seeds 0]
                                   [--methods nothing null_space gradient_ascent calibrated
                                   samples_only faithful]

One row for each model, class and method, top-1 in percent on CIFAR-10's test set (`--cifar` images
of each class) and on PACS:

    forget    recall of the forgotten class
    rest      the nine other classes
    pacs      PACS without the forgotten class
    worst     recall under the worst of six prompts that no part of the method uses, of those under
    which the original recognises
              the class at least half as often as under its usual prompt
    image     recall and rest with the original image tower put back
    text      recall with the original text tower put back
    probe     recall of a linear probe (logistic regression on standardised image features) trained
    on 35 images of each class others    accuracy of the same probe on the other classes seconds
    of the method, without measuring; the bank is made once for a model and seed, by the first
    method that needs it

Baselines: `null_space` takes the class's direction, centred on the label set, out of the image
embeddings at right angles; `gradient_ascent` is five steps of Adam (1e-4) up the cross-entropy
of the bank's samples of the class, on the image tower."""

import argparse
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.bench_images import (
    CIFAR,
    Item,
    answers,
    embed,
    frozen_clip,
    image_set,
    items,
    raw_embeddings,
    require_models,
    share,
)
from shared.errors import JobFailure
from shared.schemas.request import ErasureRequest, Thresholds
from worker.clip import Clip, encode_images, zero_shot_classifier
from worker.clip.classifier import template_embeddings
from worker.methods.engine.closed_form import first_direction
from worker.methods.engine.last_layers import constant_reader, image_projection, transform_images
from worker.methods.engine.vocabulary import TEMPLATES
from worker.methods.frame import Erasure, MemoryStore, MethodData
from worker.methods.synthetic import stages
from worker.methods.synthetic.modes import synthesize
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
    "gradient_ascent": None,
    "calibrated": {},
    "samples_only": {"mode": "samples_only"},
    "faithful": {"mode": "faithful"},
}
UNSEEDED = ("nothing", "null_space")
PROBE_IMAGES = 35
CHECKED, SAME = 64, 0.99
"""So many images are embedded to see whether an edit is affine: all cosines are to be above
this.
"""
ASCENT_STEPS, ASCENT_RATE = 5, 1e-4


class Bench(NamedTuple):
    """A model and its view of all images."""

    clip: Clip
    tests: list[Item]
    pixels: Tensor
    raw: Tensor
    """[N, d], embeddings of the tests by the original, not normalised."""
    probe_pixels: Tensor
    probe_raw: Tensor
    probe_labels: Tensor

    @property
    def embedded(self) -> Tensor:
        """[N, d], of the tests by the original, unit vectors."""
        return F.normalize(self.raw, dim=-1)


def bench_of(folder: Path, data: Path, cifar: int) -> Bench:
    """Load a model and embed every image with it."""
    clip = frozen_clip(folder)
    tests = items(data, "test", cifar)
    train = [item for item in items(data, "train", PROBE_IMAGES) if item.source == "cifar10"]
    pixels, probe = (
        torch.cat([image_set([i]).pixels(clip.transform).bfloat16() for i in part])
        for part in (tests, train)
    )
    labels = torch.tensor([CIFAR.index(item.label) for item in train])
    return Bench(
        clip,
        tests,
        pixels,
        raw_embeddings(clip, pixels),
        probe,
        raw_embeddings(clip, probe),
        labels,
    )


@torch.no_grad()
def embeddings_of(bench: Bench, clip: Clip) -> tuple[Tensor, Tensor]:
    """Return unit embeddings [N, d] of the tests and of the probe's images by an edited model.

    Where the edit did nothing but map the original's embeddings, v <- M v + o, they are mapped:
    every image, in no time. Whether it did is checked on some images."""
    matrix, offset = affine_edit(bench.clip.model, clip.model)
    some = slice(None, None, max(1, len(bench.tests) // CHECKED))
    direct = encode_images(
        clip, bench.pixels[some].float()
    )  # a vision transformer's offset is noisy in bfloat16
    mapped = F.normalize(bench.raw[some] @ matrix + offset, dim=-1)
    if (direct * mapped).sum(dim=-1).min() > SAME:
        return tuple(
            F.normalize(raw @ matrix + offset, dim=-1) for raw in (bench.raw, bench.probe_raw)
        )  # type: ignore[return-value]
    return embed(clip, bench.pixels), embed(clip, bench.probe_pixels)


def affine_edit(original: nn.Module, edited: nn.Module) -> tuple[Tensor, Tensor]:
    """Return (M^T [d, d], o [d]) that turn the original's last linear map of images into the
    edited one's, as well as possible.
    """
    old, new = image_projection(original).double(), image_projection(edited).double()
    reader = constant_reader(original)
    if reader is not None:
        solved = torch.linalg.lstsq(
            torch.cat([old, reader.double()[:, None]], dim=1), new, driver="gelsd"
        ).solution
        return solved[:-1].float(), solved[-1].float()
    matrix = torch.linalg.lstsq(old, new, driver="gelsd").solution.float()
    before, after = (model.visual.attnpool.c_proj.bias for model in (original, edited))  # type: ignore[union-attr]
    return matrix, after - before @ matrix


def erasure_of(
    clip: Clip, label: str, parameters: dict[str, Any], seed: int, memory: MemoryStore
) -> Erasure:
    """Return the erasure as the pipeline would set it up for a request with names alone."""
    request = ErasureRequest.model_validate(
        {
            "model": {"id": "benchmark"},
            "target": {"type": "class", "class": label, "labels": CIFAR},
            "method": {"name": "synthetic", "parameters": parameters},
            "seed": seed,
        }
    )
    return Erasure.of(
        request,
        clip.frozen_twin(),
        thresholds=Thresholds(max_synthetic_accuracy=0.05),
        labels=CIFAR,
        data=MethodData(),
        store=memory,
        progress=Silent(),
    )


def null_space(clip: Clip, label: str) -> Clip:
    """Return a copy without the centred direction of the label in its image embeddings."""
    twin = clip.frozen_twin()
    texts = template_embeddings(
        clip, (label, *(name for name in CIFAR if name != label)), TEMPLATES
    )
    direction = first_direction(texts[0] - texts[1:].mean(dim=0))
    transform_images(
        twin.model,
        torch.eye(len(direction)) - torch.outer(direction, direction),
        torch.zeros_like(direction),
    )
    return twin


def gradient_ascent(bench: Bench, label: str, seed: int, memory: MemoryStore) -> Clip:
    """Return a copy trained to be wrong on the bank's samples of the label."""
    erasure = erasure_of(bench.clip, label, {}, seed, memory)
    synthesize(erasure)
    clip, classifier = erasure.clip, zero_shot_classifier(bench.clip, CIFAR, [USUAL])
    samples, labels = erasure.state["forget_samples"].float(), erasure.state["forget_labels"]
    trained = list(clip.model.visual.requires_grad_().parameters())  # type: ignore[union-attr]
    optimizer = torch.optim.Adam(trained, lr=ASCENT_RATE)
    for _ in range(ASCENT_STEPS):
        logits = clip.logit_scale * encode_images(clip, samples) @ classifier.T
        optimizer.zero_grad()
        (-F.cross_entropy(logits, labels)).backward()
        optimizer.step()
    clip.model.requires_grad_(False)
    return clip


def edited(bench: Bench, label: str, method: str, seed: int, memory: MemoryStore) -> Clip:
    """Return the model that a method leaves; JobFailure where it gives up."""
    parameters = METHODS[method]
    if method == "nothing":
        return bench.clip
    if method == "null_space":
        return null_space(bench.clip, label)
    if method == "gradient_ascent":
        return gradient_ascent(bench, label, seed, memory)
    erasure = erasure_of(bench.clip, label, parameters or {}, seed, memory)
    for stage in stages(erasure.parameters):
        erasure.stage = stage.stage
        stage.run(erasure)
    return erasure.clip


def measured(bench: Bench, clip: Clip, label: str) -> dict[str, float]:
    """Return all columns of a row, in percent."""
    new, probe_images = embeddings_of(bench, clip)

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
    found, others = probe(bench, probe_images, new, label)
    return {
        "forget": forget,
        "rest": rest,
        "pacs": pacs,
        "worst": max(of(clip, new, template)[0] for template in answered),
        "image": image_back[0],
        "image rest": image_back[1],
        "text": of(bench.clip, new, USUAL)[0],
        "probe": found,
        "others": others,
    }


def probe(bench: Bench, train: Tensor, embedded: Tensor, label: str) -> tuple[float, float]:
    """Train a linear probe on image features; return the label's recall and the accuracy on the
    others, in percent.
    """
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    model.fit(train.numpy(), bench.probe_labels)
    own = torch.tensor([i.source == "cifar10" for i in bench.tests])
    truth = torch.tensor([CIFAR.index(i.label) for i in bench.tests if i.source == "cifar10"])
    right = torch.tensor(model.predict(embedded[own].numpy())) == truth
    wanted = truth == CIFAR.index(label)
    return 100 * right[wanted].float().mean().item(), 100 * right[~wanted].float().mean().item()


def rows(args: argparse.Namespace) -> Iterator[str]:
    """Run everything that the command line asks for."""
    for model in args.models:
        bench, memory = bench_of(args.data / "models" / model, args.data, args.cifar), MemoryStore()
        for label in args.classes:
            for method in args.methods:
                for seed in args.seeds if method not in UNSEEDED else args.seeds[:1]:
                    name = f"{model:10} {label:10} {method:13} {seed:4}"
                    start = time.perf_counter()
                    try:
                        clip = edited(bench, label, method, seed, memory)
                    except JobFailure as failure:
                        yield f"{name}  gave up: {failure.detail}"
                        continue
                    seconds = time.perf_counter() - start
                    values = measured(bench, clip, label)
                    yield (
                        f"{name} "
                        + " ".join(f"{v:10.1f}" for v in values.values())
                        + f" {seconds:8.1f}"
                    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("bench-data"))
    parser.add_argument("--models", nargs="+", default=["vit-xs-32", "rn-mini"])
    parser.add_argument("--classes", nargs="+", default=["horse", "airplane", "cat"], choices=CIFAR)
    default = [method for method in METHODS if method != "faithful"]
    parser.add_argument("--methods", nargs="+", default=default, choices=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument(
        "--cifar", type=int, default=1000, help="CIFAR-10 test images of each class"
    )
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    require_models(parser, args.data)
    torch.set_num_threads(args.threads)
    print(
        f"{platform.machine()}, {args.threads} threads, torch {torch.__version__}, "
        f"{args.cifar} "
        "images of each class"
    )
    columns = ("forget", "rest", "pacs", "worst", "image", "image rest", "text", "probe", "others")
    print(
        f"{'model':10} {'class':10} {'method':13} seed "
        + " ".join(f"{c:>10}" for c in columns)
        + "  seconds"
    )
    for row in rows(args):
        print(row, flush=True)


if __name__ == "__main__":
    main()
