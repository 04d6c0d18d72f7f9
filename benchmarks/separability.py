"""Claim: how well a subgroup and the rest of its class can be told apart at all, before anything is
erased.

    python -m benchmarks.separability [--models vit-xs-32 rn-mini] [--tasks sketch/elephant ...]
    [--seeds 0 1 2]

A logistic regression on the original model's features learns, from the images that
`benchmarks.three_stage` hands to the method, which images of a class are to be forgotten and which
are their siblings. On test images:

    auc       area under the ROC curve, in percent: how often a target looks more like one than a
        sibling does
    caught    share of siblings among those that look like targets, where the line is drawn so that
    3 % of the targets get by

An edit that forgets by what these features show, and learned it from so few images, can hardly
spare the siblings that are caught."""

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from benchmarks.bench_images import Item, embed, frozen_clip, image_set, items, require_models
from benchmarks.three_stage import TASKS, Cell, Draw, belongs, training_data
from worker.clip import Clip
from worker.data.images import ImageSet

SUBGROUPS = tuple(task for task in TASKS if not task.startswith("cifar10"))
GET_BY = 0.03
STRENGTH = 0.05
"""C of the regression: strong regularisation, for there are more features than images."""


def features_of(clip: Clip, images: ImageSet) -> Tensor:
    """Return unit features [N, d]."""
    return embed(clip, images.pixels(clip.transform))


def probe_of(clip: Clip, cell: Cell, seed: int, pool: list[Item]) -> Pipeline:
    """Fit a probe for targets among images of their class, on what the method is given of both."""
    data = training_data(cell, pool, Draw(), seed)
    assert data.forget is not None and data.retain is not None
    siblings = data.retain.subset(
        [index for index, name in enumerate(data.retain.names()) if name == cell.label]
    )
    examples = [features_of(clip, images) for images in (data.forget, siblings)]
    truth = torch.cat([torch.full((len(part),), index == 0) for index, part in enumerate(examples)])
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=STRENGTH, max_iter=1000))
    return probe.fit(torch.cat(examples).numpy(), truth.numpy())


def told_apart(probe: Pipeline, unseen: Tensor, target: Tensor) -> tuple[float, float]:
    """Return (auc, caught), in percent, on features [N, d] of test images; `target` [N] says
    which are to be forgotten.
    """
    scores = torch.tensor(probe.decision_function(unseen.numpy()))
    line = scores[target].quantile(GET_BY)
    return 100 * roc_auc_score(target, scores), 100 * (
        scores[~target] >= line
    ).float().mean().item()


def rows(args: argparse.Namespace) -> Iterator[str]:
    """Measure every cell with every seed, which draws the examples."""
    pool, tests = items(args.data, "train", 1000), items(args.data, "test", 0)
    for model in args.models:
        clip = frozen_clip(args.data / "models" / model)
        for cell in map(Cell, args.tasks):
            own = [item for item in tests if item.label == cell.label]
            unseen, target = (
                features_of(clip, image_set(own)),
                torch.tensor([belongs(item, cell.task) for item in own]),
            )
            found = [
                told_apart(probe_of(clip, cell, seed, pool), unseen, target) for seed in args.seeds
            ]
            auc, caught = (
                " ".join(f"{value:5.1f}" for value in column) for column in zip(*found, strict=True)
            )
            yield f"{model:10} {cell.task:20}  auc {auc}   caught {caught}"


def main() -> None:
    """Print a row for each model and cell, a figure for each seed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("bench-data"))
    parser.add_argument("--models", nargs="+", default=["vit-xs-32", "rn-mini"])
    parser.add_argument(
        "--tasks", nargs="+", default=list(SUBGROUPS), help="PACS tasks of benchmarks.three_stage"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    args = parser.parse_args()
    require_models(parser, args.data)
    for row in rows(args):
        print(row, flush=True)


if __name__ == "__main__":
    main()
