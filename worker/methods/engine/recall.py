"""How much of the target is still recognised: what decides when reminding may stop and how much
is mixed back.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from worker.methods.engine.adapters import shared_features
from worker.methods.engine.margins import leads
from worker.methods.engine.prepared_data import ENCODE_BATCH, Images, Material
from worker.methods.frame import Erasure

DEFAULT_FORGET_ACCURACY = 0.05
NEARLY = 0.25


def allowed_recall(erasure: Erasure) -> float:
    """Return half of the forget accuracy that the request allows: images never seen are
    recognised a little more often.
    """
    limit = erasure.thresholds.max_forget_accuracy
    return (DEFAULT_FORGET_ACCURACY if limit is None else limit) / 2


@torch.no_grad()
def encoded(
    erasure: Erasure, material: Material, weights: Mapping[str, Tensor], images: Images
) -> Tensor:
    """Return unit features [N, d] of images, with `weights` in place of the tower's own."""
    with erasure.precision():
        parts = images.inputs.split(ENCODE_BATCH)
        return torch.cat(
            [shared_features(material.tower, weights, part, material.start) for part in parts]
        )


def recall_of(material: Material, seen: Tensor) -> float:
    """Return the share of calibration forget images (features [N, d]) still recognised, over all of
    the guard's templates.

    Those nearly recognised count, too: of a few images none may be recognised, and yet others of
    the kind are. Nearly is within `NEARLY` of how far, on average, the original model puts the
    name ahead of its rivals or behind them: logits of one model are not those of another."""
    usual = _leads(material, material.calibration_forget.original).abs().mean()
    return float((_leads(material, seen) > -NEARLY * usual).float().mean())


def _leads(material: Material, seen: Tensor) -> Tensor:
    return leads(seen, material.bank.targets, material.bank.rivals, material.scale)
