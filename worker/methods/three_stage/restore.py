"""Stage 3, restoring: a mixture of the edited and the original weights (model soup; arXiv 2506.03117, stage 3).

    theta = alpha theta_f + (1 - alpha) theta_ori

alpha is searched on calibration images.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from shared.schemas.methods import ThreeStageParameters
from worker.methods.frame import Erasure
from worker.methods.three_stage.adapters import features, merge
from worker.methods.three_stage.material import Images, Material

DEFAULT_FORGET_ACCURACY = 0.05


class Candidate(NamedTuple):
    """A mixture and what the calibration images say of it."""

    alpha: float
    forget_accuracy: float
    retain_accuracy: float


def soup(edited: dict[str, Tensor], original: dict[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """Return alpha * edited + (1 - alpha) * original, weight by weight."""
    return {name: original[name].lerp(weight, alpha) for name, weight in edited.items()}


def choose(candidates: list[Candidate], limit: float, tolerance: float) -> Candidate:
    """Return the mixture that keeps the most among those that forget enough; of equals the one nearest to the original.

    "Enough" is a forget accuracy of at most `limit`; where no mixture reaches it, the lowest that any reaches. Mixtures whose
    retained accuracy is within `tolerance` of the best count as equals.
    """
    reach = max(limit, min(candidate.forget_accuracy for candidate in candidates))
    enough = [candidate for candidate in candidates if candidate.forget_accuracy <= reach]
    best = max(candidate.retain_accuracy for candidate in enough)
    return min((c for c in enough if c.retain_accuracy >= best - tolerance), key=lambda c: c.alpha)


def restore(erasure: Erasure, material: Material, parameters: ThreeStageParameters) -> None:
    """Choose alpha on the calibration images and mix the weights in place."""
    names = material.edited_layers()
    edited = {name: material.tower.visual.get_parameter(name).detach().clone() for name in names}
    original = {name: material.original.visual.get_parameter(name).detach() for name in names}
    candidates = []
    for step, alpha in enumerate(parameters.mixtures):
        candidates.append(_measure(erasure, material, soup(edited, original, alpha), alpha))
        erasure.step(step + 1, len(parameters.mixtures), **candidates[-1]._asdict())
    limit = erasure.thresholds.max_forget_accuracy
    chosen = choose(candidates, (DEFAULT_FORGET_ACCURACY if limit is None else limit) / 2, 0.01)
    merge(material.tower, soup(edited, original, chosen.alpha))
    erasure.notes["restoring"] = {"alpha": chosen.alpha, "candidates": [c._asdict() for c in candidates]}


@torch.no_grad()
def _measure(erasure: Erasure, material: Material, weights: dict[str, Tensor], alpha: float) -> Candidate:
    forget, retain = material.calibration
    seen, kept = (_features(erasure, material, weights, images) for images in (forget, retain))
    targets, rivals = material.bank
    wanted = torch.einsum("nd,ktd->nkt", seen, targets).amax(dim=-1)
    others = torch.einsum("nd,krd->nkr", seen, rivals).amax(dim=-1)
    recognised = (wanted > others).float().mean(dim=0).amax()
    known = retain.labels >= 0
    right = (kept[known] @ material.classifier.T).argmax(dim=1).cpu() == retain.labels[known]
    return Candidate(alpha, float(recognised), float(right.float().mean()))


def _features(erasure: Erasure, material: Material, weights: dict[str, Tensor], images: Images) -> Tensor:
    with erasure.precision():
        return torch.cat([features(material.tower, weights, part, material.start) for part in images.inputs.split(64)])
