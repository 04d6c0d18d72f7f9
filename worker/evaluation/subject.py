"""A model as the audit sees it: what it makes of images and of texts, each computed once."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from worker.clip import Clip
from worker.clip.classifier import prompts
from worker.clip.embeddings import embed_texts
from worker.evaluation.features import Features


class Subject:
    """One model: the original, the unlearned one, or a reference that never saw what is
    forgotten.
    """

    def __init__(self, clip: Clip, features: Mapping[str, Features]) -> None:
        """Take a model and its features of each place's images."""
        self.clip, self.features = clip, features
        self._texts: dict[str, Tensor] = {}

    @property
    def scale(self) -> float:
        """The logit scale s."""
        return float(self.clip.logit_scale)

    def embeddings(self, place: str) -> Tensor:
        """Return the unit image embeddings [N, d] of a place."""
        return self.features[place].embeddings

    def texts(self, names: Sequence[str], templates: Sequence[str]) -> Tensor:
        """Return unit text embeddings [N, K, d] of N names in K templates, on the CPU."""
        wanted = [text for name in names for text in prompts(name, templates)]
        return self.sentences(wanted).reshape(len(names), len(templates), -1)

    def sentences(self, wanted: Sequence[str]) -> Tensor:
        """Return unit text embeddings [N, d] of N texts as they are, on the CPU."""
        new = [text for text in dict.fromkeys(wanted) if text not in self._texts]
        if new:
            self._texts |= dict(zip(new, embed_texts(self.clip, new).float().cpu(), strict=True))
        return torch.stack([self._texts[text] for text in wanted])

    def classifier(self, labels: Sequence[str], templates: Sequence[str]) -> Tensor:
        """Return unit class weights [C, d] as `worker.clip.zero_shot_classifier` does."""
        return F.normalize(self.texts(labels, templates).mean(dim=1), dim=-1)
