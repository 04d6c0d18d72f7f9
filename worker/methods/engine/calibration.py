"""Images set aside to choose with: a layer, the length of a step, the moment to stop.

No method trains on them and no test shows them.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from worker.clip import Clip, zero_shot_classifier
from worker.methods.engine.margins import leads
from worker.methods.engine.prepared_data import Material
from worker.methods.engine.prompt_bank import TEMPLATES, PromptBank, prompt_bank
from worker.methods.engine.recall import NEARLY, allowed_recall
from worker.methods.frame import Erasure

TEMPLATE_COUNT = 7
"""Besides the request's own: the texts are embedded anew at every look."""


class Texts(NamedTuple):
    """What a text tower says at the moment."""

    classifier: Tensor
    """[C, d], unit class weights of every label."""
    bank: PromptBank


class Judged(NamedTuple):
    """What calibration images say of an edited model."""

    recall: float
    """Share of forget images that are recognised or nearly so, under any of some templates."""
    kept: float
    """Mean over siblings and other labels of min(1, accuracy / accuracy of the original model);
    1 where none is shown.
    """

    def rank(self, erasure: Erasure) -> tuple[float, float]:
        """Return what orders edits: first those that forget enough, or the most; of these the
        one that keeps the most.
        """
        return (-max(self.recall, allowed_recall(erasure)), self.kept)


class Calibration:
    """The calibration images of one erasure, and what the original model makes of them."""

    def __init__(self, erasure: Erasure, material: Material) -> None:
        self._erasure, self._material = erasure, material
        self.forget, self.retain = material.calibration_forget, material.calibration_retain
        self.texts = texts_of(erasure, erasure.original)
        """Of the original text tower."""
        self._usual = self._leads(self.forget.original, self.texts).abs().mean()
        self._before = self._right(self.retain.original, self.texts)

    def judge(self, forget: Tensor, retain: Tensor, texts: Texts) -> Judged:
        """Return what unit features [N, d] of the forget and the retain images, read with
        `texts`, show.
        """
        recall = float((self._leads(forget, texts) > -NEARLY * self._usual).float().mean())
        right, labels = self._right(retain, texts), self.retain.labels
        siblings = torch.isin(labels, torch.tensor(self._erasure.forget_labels))
        groups = [group & (labels >= 0) for group in (siblings, ~siblings)]
        shares = [
            min(1.0, float(right[g].sum() / self._before[g].sum().clamp(min=1)))
            for g in groups
            if g.any()
        ]
        return Judged(recall, sum(shares) / len(shares) if shares else 1.0)

    def _leads(self, seen: Tensor, texts: Texts) -> Tensor:
        return leads(seen, texts.bank.targets, texts.bank.rivals, self._material.scale)

    def _right(self, seen: Tensor, texts: Texts) -> Tensor:
        return (seen @ texts.classifier.T).argmax(dim=1).cpu() == self.retain.labels


def texts_of(erasure: Erasure, clip: Clip) -> Texts:
    """Embed labels and names with a model's text tower as it is now."""
    classifier = zero_shot_classifier(clip, erasure.labels, erasure.request.target.templates)
    return Texts(
        classifier,
        prompt_bank(erasure, classifier, clip=clip, templates=TEMPLATES[:TEMPLATE_COUNT]),
    )
