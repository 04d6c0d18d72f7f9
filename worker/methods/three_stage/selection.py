"""Stage 1, first half: which layers may change."""

import torch
from torch import Tensor

from shared.schemas.methods import ThreeStageParameters
from worker.methods.engine.prepared_data import Images, Material
from worker.methods.frame import Erasure
from worker.methods.three_stage.fisher import fisher_information, relative_fisher

FISHER_IMAGES = 32
"""Images of each side. The ranking of the first layers did not change with more."""


def select_layers(
    erasure: Erasure, material: Material, parameters: ThreeStageParameters
) -> list[str]:
    """Return the names of the weights to edit, in the order of the tower, and note why in
    `Erasure.notes`.

    The retain side of the ratio is the siblings (the other subgroups of the class) where there
    are any, as in the paper; else all retain images."""
    candidates = material.candidates
    if parameters.selection == "all":
        erasure.notes["layers"] = candidates
        return candidates
    generator = erasure.generator(salt=10)
    score = _information(material, material.forget, generator)
    if parameters.selection == "relative_fisher":
        score = relative_fisher(
            score, _information(material, _siblings(erasure, material.retain), generator)
        )
    chosen = sorted(score.topk(min(parameters.layers, len(candidates))).indices.tolist())
    erasure.notes["layers"] = {candidates[index]: float(score[index]) for index in chosen}
    return [candidates[index] for index in chosen]


def _siblings(erasure: Erasure, retain: Images) -> Images:
    siblings = torch.isin(retain.labels, torch.tensor(erasure.forget_labels))
    return retain.where(siblings) if siblings.any() else retain.where(retain.labels >= 0)


def _information(material: Material, images: Images, generator: torch.Generator) -> Tensor:
    picked = torch.randperm(len(images.labels), generator=generator)[:FISHER_IMAGES]
    texts = material.classifier[images.labels[picked]]
    return fisher_information(
        material.original, material.candidates, images.inputs[picked], material.start, texts
    )
