"""Zero-shot classifiers from prompt templates (Radford et al. 2021, section 3.1)."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from worker.clip.embeddings import embed_texts
from worker.clip.model import Clip


def prompts(label: str, templates: Sequence[str]) -> list[str]:
    """Return the label in each template; underscores read as spaces."""
    return [template.format(label.replace("_", " ")) for template in templates]


def zero_shot_classifier(clip: Clip, labels: Sequence[str], templates: Sequence[str]) -> Tensor:
    """Return unit class weights [C, d]: for each label the mean of its templates' unit text
    embeddings, normalised again.

    Logits of unit image embeddings v [N, d] are `clip.logit_scale * v @ weights.T`. No gradient.
    """
    return F.normalize(template_embeddings(clip, labels, templates).mean(dim=1), dim=-1)


def template_embeddings(clip: Clip, names: Sequence[str], templates: Sequence[str]) -> Tensor:
    """Return unit text embeddings [N, K, d] of N names in K templates. No gradient."""
    texts = [text for name in names for text in prompts(name, templates)]
    return embed_texts(clip, texts).reshape(len(names), len(templates), -1)
