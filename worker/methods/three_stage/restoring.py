"""Stage 3, restoring: mix the edited with the original weights (model souping; arXiv 2506.03117,
stage 3).

    theta = alpha theta_f + (1 - alpha) theta_ori

alpha is searched on calibration images: of the mixtures that forget enough, the one that keeps
the most."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from shared.schemas.methods import ThreeStageParameters
from worker.methods.engine.adapters import merge
from worker.methods.engine.prepared_data import Images, Material
from worker.methods.engine.recall import allowed_recall, encoded, recall_of
from worker.methods.frame import Erasure

ALPHAS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.6, 0.5)
"""What was forgotten comes back steadily as alpha falls; below a half nothing is forgotten any
more.
"""
EQUAL = 0.005
"""Shares of accuracy kept that differ by less count as the same."""


class Mixture(NamedTuple):
    """A mixture and what the calibration images say of it."""

    alpha: float
    forget_accuracy: float
    """Share of forget images that are recognised or nearly so, over the guard's templates."""
    kept: float
    """Mean over siblings and other classes of min(1, accuracy / accuracy of the original model)."""


def restoring(erasure: Erasure, material: Material, parameters: ThreeStageParameters) -> None:
    """Choose alpha on the calibration images and mix the weights in place."""
    if not parameters.restoring:
        return
    edited = {
        name: material.tower.visual.get_parameter(name).detach().clone() for name in material.edited
    }
    original = {name: material.original.visual.get_parameter(name) for name in material.edited}
    mixtures = []
    for step, alpha in enumerate(ALPHAS):
        mixtures.append(_measured(erasure, material, soup(edited, original, alpha), alpha))
        erasure.step(step + 1, len(ALPHAS), **mixtures[-1]._asdict())
    chosen = choose(mixtures, allowed_recall(erasure))
    merge(material.tower, soup(edited, original, chosen.alpha))
    erasure.notes["restoring"] = {
        "alpha": chosen.alpha,
        "mixtures": [mixture._asdict() for mixture in mixtures],
    }


def soup(
    edited: Mapping[str, Tensor], original: Mapping[str, Tensor], alpha: float
) -> dict[str, Tensor]:
    """Return alpha * edited + (1 - alpha) * original, weight by weight."""
    return {name: original[name].lerp(weight, alpha) for name, weight in edited.items()}


def choose(mixtures: Sequence[Mixture], limit: float) -> Mixture:
    """Return, of the mixtures that forget enough, the one that keeps the most; of equals the one
    nearest to the original.

    Enough is a forget accuracy of at most `limit`. Where no mixture reaches it, it is the lowest
    forget accuracy of any."""
    reach = max(limit, min(mixture.forget_accuracy for mixture in mixtures))
    enough = [mixture for mixture in mixtures if mixture.forget_accuracy <= reach]
    best = max(mixture.kept for mixture in enough)
    return min(
        (mixture for mixture in enough if mixture.kept >= best - EQUAL),
        key=lambda mixture: mixture.alpha,
    )


@torch.no_grad()
def _measured(
    erasure: Erasure, material: Material, weights: dict[str, Tensor], alpha: float
) -> Mixture:
    forget = encoded(erasure, material, weights, material.calibration_forget)
    retain = material.calibration_retain
    right = _right(material, retain, encoded(erasure, material, weights, retain))
    before = _right(material, retain, retain.original)
    siblings = torch.isin(retain.labels, torch.tensor(erasure.forget_labels))
    groups = [group & (retain.labels >= 0) for group in (siblings, ~siblings)]
    shares = [
        min(1.0, float(right[g].sum() / before[g].sum().clamp(min=1))) for g in groups if g.any()
    ]
    return Mixture(alpha, recall_of(material, forget), sum(shares) / len(shares) if shares else 1.0)


def _right(material: Material, images: Images, seen: Tensor) -> Tensor:
    return (seen @ material.classifier.T).argmax(dim=1).cpu() == images.labels
