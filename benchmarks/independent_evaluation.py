"""Evaluates a published model with nothing but open_clip, Pillow and torch, and compares it with a
report.

    python -m benchmarks.independent_evaluation DIR/report.json MODEL_BEFORE_DIR DIR/model

Shares no code with the engine on purpose: agreement then means something. Exits 1 when any
accuracy differs by more than 0.1 points. The archives are opened at the paths that the report's
request names."""

import argparse
import io
import json
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import open_clip
import torch
from PIL import Image

TOLERANCE = 0.001
BATCH = 128


Transform = Callable[[Image.Image], torch.Tensor]
Tokenizer = Callable[[list[str]], torch.Tensor]


def load(folder: Path) -> tuple[open_clip.CLIP, Transform, Tokenizer]:
    """Return model, transform and tokenizer of a local-dir folder, as anyone would load it."""
    name = f"local-dir:{folder}"
    model, _, transform = open_clip.create_model_and_transforms(name)
    return model.eval(), cast(Transform, transform), open_clip.get_tokenizer(name)


def read(archive: Path) -> list[tuple[str, Image.Image]]:
    """Return (class, image) of a tar of `<class>/<image>`."""
    with tarfile.open(archive) as tar:
        files = [(m.name, tar.extractfile(m)) for m in tar.getmembers() if m.isfile()]
        return [
            (name.split("/")[0], Image.open(io.BytesIO(file.read())).convert("RGB"))
            for name, file in files
            if file is not None
        ]


@torch.no_grad()
def predictions(
    model_dir: Path, images: list[tuple[str, Image.Image]], labels: list[str], templates: list[str]
) -> list[str]:
    """Return the predicted label of every image, in float32."""
    model, transform, tokenizer = load(model_dir)
    texts = torch.stack(
        [model.encode_text(tokenizer([t.format(label) for t in templates])) for label in labels]
    )
    weights = torch.nn.functional.normalize(
        torch.nn.functional.normalize(texts, dim=-1).mean(1), dim=-1
    )
    model = model.to(memory_format=torch.channels_last)
    out: list[str] = []
    for start in range(0, len(images), BATCH):
        pixels = torch.stack([transform(image) for _, image in images[start : start + BATCH]])
        features = model.encode_image(pixels.to(memory_format=torch.channels_last), normalize=True)
        out += [labels[i] for i in (features @ weights.T).argmax(1).tolist()]
    return out


def accuracy(truth: list[str], predicted: list[str]) -> float | None:
    """Return the share that agrees, None for no images."""
    return (
        sum(a == b for a, b in zip(truth, predicted, strict=True)) / len(truth) if truth else None
    )


def archive_of(request: dict[str, Any], name: str) -> list[Path]:
    """Return the archives behind one evaluation of a report."""
    data = request["data"]
    for entry in data["evaluation"]:
        if entry["name"] == name:
            return [Path(entry["dataset"])]
    return [Path(data["forget_test"]), Path(data["retain_test"])]


def compare(report: dict[str, Any], request: dict[str, Any], before: Path, after: Path) -> float:
    """Print every accuracy of the report beside ours and return the largest difference."""
    gone = request["target"]["class"]
    subgroup = request["target"]["type"] == "subgroup"
    worst = 0.0
    for evaluation in report["evaluations"]:
        archives = archive_of(request, evaluation["name"])
        parts = [
            (read(path), number == 0 if len(archives) == 2 else None)
            for number, path in enumerate(archives)
        ]
        images = [image for part, _ in parts for image in part]
        is_forget = [
            flag if flag is not None else (not subgroup and label == gone)
            for part, flag in parts
            for label, _ in part
        ]
        for moment, folder in (("before", before), ("after", after)):
            predicted = predictions(folder, images, evaluation["labels"], evaluation["templates"])
            for role, wanted in (("forget", True), ("retain", False)):
                chosen = [i for i, flag in enumerate(is_forget) if flag == wanted]
                ours = accuracy([images[i][0] for i in chosen], [predicted[i] for i in chosen])
                theirs = evaluation[role][moment]["value"] if evaluation[role] else None
                if ours is None or theirs is None:
                    continue
                worst = max(worst, abs(ours - theirs))
                what = f"{evaluation['name']:>20} {role:>7} {moment:>6}"
                print(f"{what}  report {theirs:.4f}  independent {ours:.4f}  n {len(chosen)}")
    return worst


def main() -> None:
    """Compare one report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("report", type=Path)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument(
        "--request",
        type=Path,
        help="the request file, where the report's own request names uploads",
    )
    args = parser.parse_args()
    report = json.loads(args.report.read_text())
    request = json.loads(args.request.read_text()) if args.request else report["request"]
    worst = compare(report, request, args.before, args.after)
    print(f"largest difference: {100 * worst:.3f} points")
    sys.exit(worst > TOLERANCE)


if __name__ == "__main__":
    main()
