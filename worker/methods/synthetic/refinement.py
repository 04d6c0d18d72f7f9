"""Training the last linear map of each tower on samples and names, level by level, under a trust
region.

    v <- (I + A) v,   t <- (I + B) t,   A, B [d, d] from zero, by Adam

    L_image = mean relu(lead(v'_f, t) + m) + 30 mean(1 - cos(v'_r, v_r)) + 20 mean |A^T t_r|^2
    L_text  = mean relu(lead(v_f, t') + n) + 60 mean(1 - cos(t'_r, t_r))

v_f are samples of what is forgotten, mixed with others; v_r samples of what stays, mixed with one
another; t_r the texts of what stays; lead is by how many logits a forgotten name is ahead. Each
tower is to forget while the other is as it was, so that neither, put back, undoes the other.

Only the last maps are trained: deeper layers learn to tell samples from images, and accuracy on
samples falls to nothing while recall of images stays. A linear map cannot tell them apart along
the directions that they share."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from shared.errors import JobFailure
from shared.schemas.methods import SyntheticParameters
from worker.clip import Clip, encode_images, zero_shot_classifier
from worker.methods.engine.last_layers import transform_images, transform_texts
from worker.methods.engine.margins import leads
from worker.methods.engine.vocabulary import Texts
from worker.methods.frame import Erasure
from worker.methods.synthetic.bank import Bank
from worker.methods.synthetic.losses import drift, mixtures

LOSSES = ("guard_loss of each tower", "drift of samples", "drift of texts", "reading of what stays")
LEARNING_RATE = 1e-3
SMALLEST_RATE = 1e-4
STEPS = 40
"""Of a level."""
SAMPLE_WEIGHT, READING_WEIGHT, TEXT_WEIGHT = 30.0, 20.0, 60.0
TRUST = 0.75
"""Largest share of held-out samples of what stays, mixed with others, whose answer may change.
It catches a collapse, no more: up to 0.6 changed in edits that cost real images nothing, because
samples lie near the borders."""
TEMPLATES = 12


class Level(NamedTuple):
    """How strongly to forget: margins in logits, and the smallest share of a sample in a mixture
    that must be forgotten.
    """

    image: float
    text: float
    share: float


LEVELS = (Level(3.0, 8.0, 0.5), Level(4.0, 10.0, 0.4), Level(5.0, 12.0, 0.3))
HARDEST = 0.7
"""Share of a held-out sample in the mixtures on which a refinement is judged."""
SAFETY = 3.0
"""Logits by which a held-out sample must be behind to count as unknown: images are not samples."""


def refine(
    erasure: Erasure, parameters: SyntheticParameters, bank: Bank, texts: Texts, limit: float
) -> None:
    """Train level by level until neither tower recognises held-out samples, even mixed with others,
    more often than `limit`.

    A level that leaves the trust region is undone and tried again at half the learning rate. Leaves
    in `notes` what each level did.

    Args:
        erasure: its model is edited in place.
        parameters: `max_steps` and `learning_rate` count.
        bank: the samples.
        texts: of the names, by the model under edit.
        limit: share of held-out samples that may still be recognised.

    Raises:
        JobFailure: `method_failed`: recognition of held-out samples never fell; the model is as it
            was.
    """
    trainer = _Trainer(
        erasure, _material(erasure, bank, texts), parameters.learning_rate or LEARNING_RATE
    )
    budget = parameters.max_steps or STEPS * len(LEVELS)
    start = best = trainer.recognised()
    rows: list[dict[str, float]] = []
    remaining, done = list(LEVELS), 0
    while remaining and done < budget and best > limit and trainer.rate >= SMALLEST_RATE:
        steps = min(STEPS, budget - done)
        loss, moved = trainer.run(remaining[0], steps, erasure.generator(7000 + done))
        done += steps
        best = trainer.recognised()
        rows.append(
            {"loss": loss, "moved": moved, "recognised": best, "learning_rate": trainer.rate}
        )
        erasure.step(done, budget, **rows[-1])
        if moved <= TRUST:
            remaining.pop(0)
    erasure.notes["training"] = {
        "steps": done,
        "recognised_before": start,
        "recognised": best,
        "levels": rows,
    }
    if best >= start:
        raise JobFailure(
            "method_failed",
            f"Training on samples left as many recognisable as before: {start:.3f} of them.",
        )
    trainer.fold()


@dataclass(frozen=True, slots=True)
class _Material:
    """What the towers say before the training, unit vectors on the model's device."""

    forget: Tensor
    retain: Tensor
    held_forget: Tensor
    held_retain: Tensor
    targets: Tensor
    """[K, names, d]: texts of what is forgotten."""
    rivals: Tensor
    """[K, labels, d]: texts of the labels that stay."""
    stays: Tensor
    """[N, d]: texts of the labels and common names that stay."""
    scale: Tensor


def _material(erasure: Erasure, bank: Bank, texts: Texts) -> _Material:
    k = min(TEMPLATES, texts.labels.shape[1], texts.common.shape[1])
    retain = features(erasure, bank.retain)
    held = torch.arange(len(retain), device=retain.device) % 4 == 0
    return _Material(
        forget=features(erasure, bank.forget),
        retain=retain[~held],
        held_forget=features(erasure, bank.held_out),
        held_retain=retain[held],
        targets=texts.forgotten[:, :k].transpose(0, 1),
        rivals=texts.labels[:, :k].transpose(0, 1),
        stays=torch.cat([texts.labels[:, :k].flatten(0, 1), texts.common[:, :k].flatten(0, 1)]),
        scale=erasure.clip.logit_scale,
    )


class _Trainer:
    """A and B, and one level of their training at a time."""

    def __init__(self, erasure: Erasure, material: _Material, rate: float) -> None:
        self._erasure, self._m, self.rate = erasure, material, rate
        d, device = material.forget.shape[1], material.forget.device
        self._a, self._b = (torch.zeros(d, d, device=device, requires_grad=True) for _ in range(2))
        self._optimizer = torch.optim.Adam([self._a, self._b], lr=rate)
        generator = erasure.generator(6998)
        self._stays = mixtures(
            material.held_retain.repeat(4, 1), material.retain, HARDEST, generator
        )
        self._before = self._answers(self._stays, material.rivals)

    def run(self, level: Level, steps: int, generator: torch.Generator) -> tuple[float, float]:
        """Train one level; where it leaves the trust region, undo it. Returns (last loss, share
        of answers that changed).
        """
        kept, optimizer = (self._a.detach().clone(), self._b.detach().clone()), self._optimizer
        for _ in range(steps):
            loss = self._loss(level, generator)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        moved = self._moved()
        if moved > TRUST:
            with torch.no_grad():
                self._a.copy_(kept[0])
                self._b.copy_(kept[1])
            self.rate /= 2
            self._optimizer = torch.optim.Adam([self._a, self._b], lr=self.rate)
        return float(loss.detach()), moved

    def _loss(self, level: Level, generator: torch.Generator) -> Tensor:
        m = self._m
        seen = mixtures(m.forget.repeat(2, 1), m.retain, level.share, generator)
        others = mixtures(m.retain, m.retain, 0.5, generator)
        image = F.relu(
            leads(_mapped(seen, self._a), m.targets, m.rivals, m.scale) + level.image
        ).mean()
        text = F.relu(
            leads(seen, _mapped(m.targets, self._b), _mapped(m.rivals, self._b), m.scale)
            + level.text
        ).mean()
        samples = SAMPLE_WEIGHT * drift(_mapped(others, self._a), others)
        reading = READING_WEIGHT * (m.stays @ self._a).square().sum(dim=-1).mean()
        return (
            image
            + text
            + samples
            + reading
            + TEXT_WEIGHT * drift(_mapped(m.stays, self._b), m.stays)
        )

    @torch.no_grad()
    def recognised(self) -> float:
        """Return the share of held-out samples, mixed with others, that a tower may still
        recognise: the worse of the two.
        """
        m = self._m
        mixed = mixtures(
            m.held_forget.repeat(4, 1), m.held_retain, HARDEST, self._erasure.generator(6999)
        )
        of_image = leads(_mapped(mixed, self._a), m.targets, m.rivals, m.scale)
        of_text = leads(mixed, _mapped(m.targets, self._b), _mapped(m.rivals, self._b), m.scale)
        return max(float((lead > -SAFETY).float().mean()) for lead in (of_image, of_text))

    @torch.no_grad()
    def _moved(self) -> float:
        now = self._answers(_mapped(self._stays, self._a), _mapped(self._m.rivals, self._b))
        return float((now != self._before).float().mean())

    def _answers(self, seen: Tensor, rivals: Tensor) -> Tensor:
        """Return which of the labels that stay is nearest under the request's own template, [N]."""
        return (seen @ rivals[0].T).argmax(dim=-1)

    def fold(self) -> None:
        """Put A and B into the model."""
        identity = torch.eye(len(self._a), device=self._a.device)
        model = self._erasure.clip.model
        transform_images(model, identity + self._a.detach(), torch.zeros_like(identity[0]))
        transform_texts(model, identity + self._b.detach())


def _mapped(vectors: Tensor, change: Tensor) -> Tensor:
    """Return (I + change) x, as unit vectors, for each x of vectors [..., d]."""
    return F.normalize(vectors + vectors @ change.T, dim=-1)


def synthetic_accuracy(erasure: Erasure, samples: Tensor, labels: Tensor) -> float:
    """Return the share of samples [N, 3, H, W] that the model under edit gives their label [N]."""
    return share_right(features(erasure, samples), classifier_of(erasure, erasure.clip), labels)


def share_right(features: Tensor, classifier: Tensor, labels: Tensor) -> float:
    """Return the share of unit features [N, d] for which a classifier [C, d] answers with their
    label [N].
    """
    return float(((features @ classifier.T).argmax(dim=1).cpu() == labels).float().mean())


def classifier_of(erasure: Erasure, clip: Clip) -> Tensor:
    """Return the request's zero-shot classifier [C, d] by a model's text tower."""
    return zero_shot_classifier(clip, erasure.labels, erasure.request.target.templates)


@torch.no_grad()
def features(erasure: Erasure, samples: Tensor, clip: Clip | None = None) -> Tensor:
    """Return unit features [N, d] in float32 of samples [N, 3, H, W], by the model under edit or
    by `clip`.
    """
    clip = clip or erasure.clip
    with erasure.precision():
        parts = [
            encode_images(clip, part.float().to(clip.device)).float() for part in samples.split(64)
        ]
    return torch.cat(parts)
