"""Training the late half of the image tower on samples, under a trust region.

    L = KL( q_0(x_f) || softmax(s cos(f(x_f), W)) ) + 10 (1 - cos(f(x_r), a(x_r)))

q_0 is the original's answer with the forgotten labels masked (DELETE); a(x) is the feature at the start of the training. A step
that moves retain samples' answers by more than the trust region is undone and the learning rate halved.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from shared.errors import JobFailure
from shared.schemas.methods import SyntheticParameters
from worker.clip import encode_images, zero_shot_classifier
from worker.methods.frame import Erasure
from worker.methods.synthetic.bank import Bank
from worker.methods.synthetic.losses import drift, masked_divergence

LEARNING_RATE = 1e-4
RETAIN_WEIGHT = 10.0
TRUST = 0.15
"""Largest mean KL of the answers on held-out retain samples from those before."""
SMALLEST_RATE = 1e-6
BATCH_FORGET, BATCH_RETAIN = 16, 32


@torch.no_grad()
def synthetic_accuracy(erasure: Erasure, samples: Tensor, labels: Tensor) -> float:
    """Return the share of samples [N, 3, H, W] that the model under edit gives their label [N]."""
    return float((_answers(erasure, samples).argmax(dim=1).cpu() == labels).float().mean())


def refine(erasure: Erasure, parameters: SyntheticParameters, bank: Bank, limit: float) -> None:
    """Train until held-out samples are recognised at most as often as `limit` allows; keep the best weights that were reached.

    Args:
        erasure: its model is edited in place.
        parameters: `max_steps` and `learning_rate` count.
        bank: the samples.
        limit: accuracy on held-out samples at which to stop.

    Raises:
        JobFailure: `method_failed`: held-out accuracy never fell; the model is as it was.
    """
    model = erasure.clip.model
    trained = late_parameters(model)
    trainer = _Trainer(erasure, bank, trained, parameters.learning_rate or LEARNING_RATE)
    start = best = synthetic_accuracy(erasure, bank.held_out, bank.held_out_labels)
    best_weights = copy.deepcopy(model.state_dict())
    steps = 0
    while steps < parameters.max_steps and best > limit and trainer.rate > SMALLEST_RATE:
        steps += 1
        loss, moved = trainer.step(erasure.generator(7000 + steps))
        accuracy = synthetic_accuracy(erasure, bank.held_out, bank.held_out_labels)
        erasure.step(steps, parameters.max_steps, loss=loss, moved=moved, held_out_accuracy=accuracy)
        if accuracy < best:
            best, best_weights = accuracy, copy.deepcopy(model.state_dict())
    model.load_state_dict(best_weights)
    model.requires_grad_(False)
    erasure.notes["training"] = {"steps": steps, "held_out_accuracy": best, "learning_rate": trainer.rate}
    if best >= start:
        raise JobFailure("method_failed", f"Training on samples did not lower the held-out accuracy of {start:.3f}.")


def late_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Return what is trained: the later half of a transformer's blocks, or the last stage and attention pooling of a ResNet.

    Batch normalisation stays as it is, statistics and affine parameters.
    """
    visual: Any = model.visual
    if hasattr(visual, "attnpool"):
        modules: list[nn.Module] = [visual.layer4, visual.attnpool]
    else:
        blocks = visual.transformer.resblocks
        modules = list(blocks[len(blocks) // 2 :])
    frozen = {id(p) for m in modules for n in m.modules() if isinstance(n, nn.BatchNorm2d) for p in n.parameters()}
    return [p for module in modules for p in module.parameters() if id(p) not in frozen]


class _Trainer:
    """One training run: what stays fixed, and one step at a time."""

    def __init__(self, erasure: Erasure, bank: Bank, trained: list[nn.Parameter], rate: float) -> None:
        self._erasure, self._bank, self._trained, self.rate = erasure, bank, trained, rate
        clip, original = erasure.clip, erasure.original
        self._classifier = zero_shot_classifier(clip, erasure.labels, erasure.request.target.templates)
        first = zero_shot_classifier(original, erasure.labels, erasure.request.target.templates)
        self._forget_logits = original.logit_scale * _features(erasure, original.model, bank.forget) @ first.T
        self._anchor = _features(erasure, clip.model, bank.retain)
        held = torch.arange(len(bank.retain)) % 4 == 0
        self._held, self._train = held.nonzero().flatten(), (~held).nonzero().flatten()
        self._before = _answers(erasure, bank.retain[self._held]).softmax(dim=1)
        clip.model.requires_grad_(False)
        for parameter in trained:
            parameter.requires_grad_()
        self._optimizer = torch.optim.Adam(trained, lr=rate, betas=(0.9, 0.98))

    def step(self, generator: torch.Generator) -> tuple[float, float]:
        """Take one step, undo it where it leaves the trust region; return (loss, how far it moved)."""
        kept = [parameter.detach().clone() for parameter in self._trained]
        loss = self._loss(generator)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._optimizer.step()
        moved = self._moved()
        if moved > TRUST:
            with torch.no_grad():
                for parameter, old in zip(self._trained, kept, strict=True):
                    parameter.copy_(old)
            self.rate /= 2
            self._optimizer = torch.optim.Adam(self._trained, lr=self.rate, betas=(0.9, 0.98))
        return float(loss.detach()), moved

    def _loss(self, generator: torch.Generator) -> Tensor:
        erasure, bank, clip = self._erasure, self._bank, self._erasure.clip
        chosen = torch.randint(len(bank.forget), (min(BATCH_FORGET, len(bank.forget)),), generator=generator)
        kept = self._train[torch.randint(len(self._train), (BATCH_RETAIN,), generator=generator)]
        pixels = torch.cat([bank.forget[chosen], bank.retain[kept]]).float().to(clip.device)
        with erasure.precision():
            features = encode_images(clip, pixels)
        features = features.float()
        logits = clip.logit_scale * features[: len(chosen)] @ self._classifier.T
        forget = masked_divergence(logits, self._forget_logits[chosen], erasure.forget_labels)
        return forget + RETAIN_WEIGHT * drift(features[len(chosen) :], self._anchor[kept])

    @torch.no_grad()
    def _moved(self) -> float:
        now = _answers(self._erasure, self._bank.retain[self._held]).log_softmax(dim=1)
        return float((self._before * (self._before.clamp_min(1e-12).log() - now)).sum(dim=1).mean())


@torch.no_grad()
def _answers(erasure: Erasure, samples: Tensor) -> Tensor:
    """Return the logits [N, C] of the model under edit."""
    clip = erasure.clip
    classifier = zero_shot_classifier(clip, erasure.labels, erasure.request.target.templates)
    return clip.logit_scale * _features(erasure, clip.model, samples) @ classifier.T


@torch.no_grad()
def _features(erasure: Erasure, model: nn.Module, samples: Tensor) -> Tensor:
    """Return unit features [N, d] in float32."""
    device = erasure.clip.device
    with erasure.precision():
        parts = [model.encode_image(part.float().to(device), normalize=True).float() for part in samples.split(64)]  # type: ignore[operator]
    return torch.cat(parts)
