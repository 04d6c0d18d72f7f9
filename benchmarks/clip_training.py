"""Trains a small CLIP from nothing: what `train_demo_clip` and `gold` share.

Images belong to groups, captions are true of groups. In each step every image of a batch is to
find all captions that are true of it, and every caption all its images, all equally right:
cross-entropy both ways, as in CLIP, with several matches."""

import json
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import open_clip
import torch
from safetensors.torch import save_file
from torch import Tensor


class Caption(NamedTuple):
    """A sentence and the groups of images of which it is true."""

    text: str
    groups: Sequence[Hashable]


class Pictures(NamedTuple):
    """Images as uint8 [N, 3, H, W], what they may show, and which of these each one shows [N]."""

    pixels: Tensor
    groups: Sequence[Hashable]
    group_of: Tensor


@dataclass(frozen=True, slots=True)
class Recipe:
    """How long and how fast."""

    seed: int = 0
    """Of the captions; that of weights and order is torch's own."""
    epochs: int = 10
    batch: int = 128
    rate: float = 1e-3


Captions = Callable[[np.random.Generator], list[Caption]]
Prepare = Callable[[Tensor], Tensor]
"""uint8 pixels to what the image tower takes."""


def train(
    model: open_clip.CLIP, pictures: Pictures, captions: Captions, prepare: Prepare, recipe: Recipe
) -> None:
    """Teach the model which captions are true of which images; the captions are drawn anew in
    each step.
    """
    rng = np.random.default_rng(recipe.seed)
    tokenizer = open_clip.SimpleTokenizer(context_length=model.context_length)
    optimisers = make_optimisers(model, recipe.rate)
    order = list(batches(len(pictures.pixels), recipe.batch, recipe.epochs))
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: min(1.0, step / 100) * (1 - step / len(order))
        )
        for optimiser in optimisers
    ]
    start = time.perf_counter()
    for step, chosen in enumerate(order):
        said = captions(rng)
        true = torch.tensor(
            [[group in caption.groups for caption in said] for group in pictures.groups]
        )
        images = model.encode_image(prepare(pictures.pixels[chosen]), normalize=True)
        texts = model.encode_text(tokenizer([caption.text for caption in said]), normalize=True)
        logits, match = model.logit_scale.exp() * images @ texts.T, true[pictures.group_of[chosen]]
        loss = (one_way(logits, match) + one_way(logits.T, match.T)) / 2
        model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser, schedule in zip(optimisers, schedules, strict=True):
            optimiser.step()
            schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, np.log(100))
        if step % 50 == 0:
            right = match.gather(1, logits.argmax(dim=1, keepdim=True)).float().mean()
            print(
                (
                    f"{step}/{len(order)} loss {loss:.3f}, first caption right {right:.3f} "
                    f"{time.perf_counter() - start:.0f} s"
                ),
                flush=True,
            )


def one_way(logits: Tensor, match: Tensor) -> Tensor:
    """Cross-entropy of each row against its matches, all equally right; rows without a match do
    not count.
    """
    loss = -(logits.log_softmax(1) * match).sum(1) / match.sum(1).clamp(min=1)
    return loss.sum() / match.any(1).sum()


def batches(count: int, size: int, epochs: int) -> Iterator[Tensor]:
    """Yield indices of images, in a new order each epoch."""
    for _ in range(epochs):
        yield from torch.randperm(count).split(size)


def make_optimisers(model: open_clip.CLIP, rate: float) -> list[torch.optim.Optimizer]:
    """Return Muon for the matrices inside the transformers and AdamW for everything else.

    Muon is what makes minutes on one thread enough: with AdamW alone the image tower is still
    guessing by then."""
    matrices = {name for name, p in model.named_parameters() if p.ndim == 2 and "resblocks" in name}
    inner = [p for name, p in model.named_parameters() if name in matrices]
    rest = [p for name, p in model.named_parameters() if name not in matrices]
    # No decay outside: it would shrink the rows of words that no caption holds.
    return [
        torch.optim.Muon(inner, lr=20 * rate, momentum=0.9, weight_decay=0.05),
        torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.98), weight_decay=0),
    ]


def save(model: open_clip.CLIP, config: dict[str, Any], folder: Path) -> int:
    """Write the model in open_clip's local-dir layout, weights in half precision, and return its
    bytes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    weights = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors", metadata={"format": "pt"})
    (folder / "open_clip_model.safetensors").chmod(
        0o644
    )  # safetensors lets the owner alone read it
    return sum(file.stat().st_size for file in folder.iterdir())
