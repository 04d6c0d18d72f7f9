"""The published loop: one step a level, kept if synthetic accuracy falls, else undone and the
level raised.
"""

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from shared.errors import JobFailure
from shared.schemas.methods import SyntheticParameters
from worker.methods.frame import Erasure
from worker.methods.synthetic.bank import Bank
from worker.methods.synthetic.losses import lipschitz_loss, noisy
from worker.methods.synthetic.refinement import synthetic_accuracy

PROMPT = "A picture of {}"
LEARNING_RATE = 5e-5
MAX_STEPS = 30
LOSSES = ("lipschitz_loss",)


class Level(NamedTuple):
    """How strong the noise is, and how many tensors of each tower are updated."""

    sigma: float
    image: int
    text: int


TRANSFORMER_LEVELS = tuple(
    Level(s, k, k)
    for s, k in zip((0.1, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0), (25, 27, 30, 33, 35, 40, 45), strict=True)
)
RESNET_LEVELS = tuple(
    Level(*row)
    for row in (
        (0.1, 5, 5),
        (0.3, 7, 7),
        (0.5, 10, 12),
        (0.7, 13, 18),
        (1.0, 15, 25),
        (1.5, 20, 30),
        (2.0, 25, 35),
    )
)


def published_loop(
    erasure: Erasure, parameters: SyntheticParameters, bank: Bank, limit: float
) -> None:
    """Run the loop of arXiv 2407.07485 on the training samples until their accuracy is at most
    `limit`.

    Decided as published: Adam with weight decay 0.2 added to the gradient of the selected tensors,
    strict "less than", rollback of weights and optimiser, all samples in one batch. Decided
    otherwise: where no step ever helped the published code goes on with the last rejected weights;
    here that is a failure.

    Raises:
        JobFailure: `method_failed`: no step lowered the accuracy.
    """
    model = erasure.clip.model
    candidates = candidate_tensors(model)
    optimizer = torch.optim.Adam(
        [t for group in candidates for t in group],
        lr=parameters.learning_rate or LEARNING_RATE,
        betas=(0.9, 0.98),
        eps=1e-6,
        weight_decay=0.2,
    )
    levels = RESNET_LEVELS if hasattr(model.visual, "attnpool") else TRANSFORMER_LEVELS
    level, best, improved = 0, 1.0, False
    steps = parameters.max_steps or MAX_STEPS
    for step in range(steps):
        kept = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
        loss = _step(
            erasure, parameters, bank, candidates, optimizer, levels[level], salt=5000 + step
        )
        accuracy = synthetic_accuracy(erasure, bank.forget, bank.forget_labels)
        erasure.step(step + 1, steps, loss=loss, accuracy=accuracy, level=float(level))
        if accuracy < best:
            best, improved = accuracy, True
        else:
            model.load_state_dict(kept[0])
            optimizer.load_state_dict(kept[1])
            level += 1
        if best <= limit or level == len(levels):
            break
    erasure.notes["levels"] = {"reached": level, "training_accuracy": best}
    if not improved:
        raise JobFailure(
            "method_failed",
            (
                "The published procedure lowered the accuracy on its own samples at none of its "
                "levels; try the mode calibrated."
            ),
        )


def candidate_tensors(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return the tensors of both towers that may be updated: in a ResNet those of attention pooling
    alone.

    Of the text tower those of the transformer, never its embeddings or its projection.
    """
    visual = dict(model.visual.named_parameters())  # type: ignore[union-attr]
    if hasattr(model.visual, "attnpool"):
        visual = {
            n: p for n, p in visual.items() if n.startswith("attnpool.") and "positional" not in n
        }
    text: Any = getattr(model, "text", model)
    return list(visual.values()), list(text.transformer.parameters())


def select(tensors: Sequence[nn.Parameter], k: int) -> None:
    """Keep the gradient of the k tensors whose mean |gradient| is largest; take it from the
    others, so that Adam skips them.
    """
    scored = [t for t in tensors if t.grad is not None]
    scored.sort(key=lambda t: float(t.grad.abs().mean()), reverse=True)  # type: ignore[union-attr]
    for tensor in scored[k:]:
        tensor.grad = None


def _step(
    erasure: Erasure,
    parameters: SyntheticParameters,
    bank: Bank,
    candidates: tuple[list[nn.Parameter], list[nn.Parameter]],
    optimizer: torch.optim.Optimizer,
    level: Level,
    salt: int,
) -> float:
    clip, generator = erasure.clip, erasure.generator(salt)
    x = bank.forget.float().to(clip.device)
    names = [erasure.labels[i] for i in bank.forget_labels.tolist()]
    tokens = clip.tokenizer([PROMPT.format(name) for name in names]).to(clip.device)
    clip.model.requires_grad_(False)
    for tensor in (*candidates[0], *candidates[1]):
        tensor.requires_grad_()
    copies = noisy(x, level.sigma, parameters.noise_draws, generator)
    perturbed = _embed(clip.model, copies)
    with erasure.precision():
        image, text = clip.model.encode_image(x), clip.model.encode_text(tokens)  # type: ignore[operator]
    loss = lipschitz_loss(
        image.float(), text.float(), perturbed, (copies - x).flatten(2).norm(dim=-1)
    )
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    select(candidates[0], level.image)
    select(candidates[1], level.text)
    optimizer.step()
    return float(loss.detach())


@torch.no_grad()
def _embed(model: nn.Module, copies: Tensor) -> Tensor:
    """Return embeddings [n, N, d], not normalised, of noisy copies [n, N, 3, H, W]."""
    return torch.stack([model.encode_image(part).float() for part in copies])  # type: ignore[operator]
