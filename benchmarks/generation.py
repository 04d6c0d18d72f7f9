"""Claim: samples are made in batches much faster than one at a time, as the published loop makes
them.

    python -m benchmarks.generation [--model bench-data/models/vit-xs-32 | --architecture ViT-B-16]
    [--device auto]
                                    [--samples 64] [--iterations 8]

Milliseconds for each image and iteration, in the same run and on the same model: the published
ascent (arXiv 2407.07485: two forward passes and one backward pass an iteration) with one image
at a time and with a batch, no sample ever accepted; and the bank's generator with a batch. With
`--architecture` the weights are random: speed does not depend on them."""

import argparse
import json
import platform
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import open_clip
import torch

from benchmarks.bench_images import CIFAR
from benchmarks.synthetic import USUAL, erasure_of
from worker.clip import Clip, zero_shot_classifier
from worker.clip.checkpoint import load_clip, save_weights
from worker.methods.frame import Erasure, MemoryStore
from worker.methods.synthetic.generation import Inverter, ascend
from worker.pipeline import chosen_device

NEVER = 1.1
"""A confidence that no sample reaches."""


def clip_of(args: argparse.Namespace) -> Clip:
    """Load the model, or make one of an architecture with random weights."""
    device = chosen_device(args.device)
    with TemporaryDirectory() as scratch:
        folder = args.model
        if args.architecture:
            folder = Path(scratch) / "random"
            folder.mkdir()
            (folder / "open_clip_config.json").write_text(
                json.dumps({"architecture": args.architecture})
            )
            save_weights(
                open_clip.create_model(args.architecture), folder / "open_clip_model.safetensors"
            )
        clip = load_clip(f"local-dir:{folder}", scratch=Path(scratch), device=device)
    clip.model.requires_grad_(False)
    return clip


def published(
    erasure: Erasure, classifier: torch.Tensor, count: int, batch: int, iterations: int
) -> float:
    """Return milliseconds for each image and iteration of the published ascent."""
    labels = torch.arange(count) % len(CIFAR)
    start = time.perf_counter()
    for part in labels.split(batch):
        ascend(erasure, classifier, part, iterations, NEVER, erasure.generator(1))
    synchronize(erasure)
    return 1000 * (time.perf_counter() - start) / (count * iterations)


def inverted(erasure: Erasure, classifier: torch.Tensor, count: int, iterations: int) -> float:
    """Return milliseconds for each image and iteration of the bank's generator."""
    labels = torch.arange(count) % len(CIFAR)
    start = time.perf_counter()
    Inverter(erasure, classifier, iterations).batch(labels, 0, lambda _: None)
    synchronize(erasure)
    return 1000 * (time.perf_counter() - start) / (count * iterations)


def synchronize(erasure: Erasure) -> None:
    """Wait for the device."""
    if erasure.clip.device.type == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=Path("bench-data/models/vit-xs-32"))
    parser.add_argument(
        "--architecture",
        choices=open_clip.list_models(),
        metavar="NAME",
        help="as open_clip calls it",
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--iterations", type=int, default=8)
    args = parser.parse_args()
    clip = clip_of(args)
    erasure = erasure_of(clip, CIFAR[0], {}, 0, MemoryStore())
    classifier = zero_shot_classifier(clip, CIFAR, [USUAL])
    print(
        f"{platform.machine()}, {clip.device}, {torch.get_num_threads()} threads, torch "
        f"{torch.__version__}"
    )
    print(
        f"{args.architecture or args.model}, {clip.image_size} px, {args.samples} samples, "
        f"{args.iterations} iterations"
    )
    published(erasure, classifier, 4, 1, 1)  # warm up
    one = published(erasure, classifier, args.samples, 1, args.iterations)
    many = published(erasure, classifier, args.samples, args.samples, args.iterations)
    ours = inverted(erasure, classifier, args.samples, args.iterations)
    for name, value in (
        ("published, one at a time", one),
        ("published, in a batch", many),
        ("bank, in a batch", ours),
    ):
        print(f"{name:26} {value:8.2f} ms per image and iteration  {one / value:6.2f} x")


if __name__ == "__main__":
    main()
