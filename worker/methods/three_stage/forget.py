"""Stage 1, forgetting: choose the layers, then drive image-text similarity of the forget images down (arXiv 2506.03117, L_f).

    min over LoRA of   L_f = mean_i  v(x_i) . t        for x_i in D_f, t the text of their class

It stops as soon as two batches in a row are no longer recognised: every further step only damages what shares the text.
"""

import torch
from torch import Tensor

from shared.schemas.methods import ThreeStageParameters
from worker.methods.frame import Erasure
from worker.methods.three_stage.adapters import adapt, features, merge
from worker.methods.three_stage.fisher import fisher_information, relative_fisher
from worker.methods.three_stage.losses import forget_loss
from worker.methods.three_stage.material import Images, Material, balanced_indices

BATCH = 24
RECOGNISED = 0.02
"""Share of the last two batches that may still be recognised when the stage stops."""
FISHER_IMAGES = 40


def forget(erasure: Erasure, material: Material, parameters: ThreeStageParameters) -> None:
    """Choose the layers to edit, then make them forget."""
    names = select_layers(erasure, material, parameters)
    candidates = material.tower.weights(material.first_candidate)
    erasure.state["edited_layers"] = torch.tensor([candidates.index(name) for name in names])
    material.start_at(min(material.tower.segment_of(name) for name in names))
    if parameters.forgetting:
        _tune(erasure, material, parameters, names)


def select_layers(erasure: Erasure, material: Material, parameters: ThreeStageParameters) -> list[str]:
    """Return the names of the weights to edit, in the order of the tower."""
    candidates = material.tower.weights(material.first_candidate)
    if parameters.selection == "all":
        return candidates
    generator = erasure.generator(salt=10)
    score = _information(material, candidates, material.forget, generator)
    if parameters.selection == "relative_fisher":
        score = relative_fisher(score, _information(material, candidates, material.retain, generator))
    chosen = set(score.topk(min(parameters.layers, len(candidates))).indices.tolist())
    erasure.notes["layers"] = {candidates[i]: float(score[i]) for i in sorted(chosen)}
    return [name for i, name in enumerate(candidates) if i in chosen]


def _information(material: Material, names: list[str], images: Images, generator: torch.Generator) -> Tensor:
    known = images.labels >= 0
    picked = known.nonzero().flatten()[balanced_indices(images.labels[known], FISHER_IMAGES, generator)]
    texts = material.classifier[images.labels[picked]]
    return fisher_information(material.original, names, images.inputs[picked], material.start, texts)


def _tune(erasure: Erasure, material: Material, parameters: ThreeStageParameters, names: list[str]) -> None:
    images, texts = material.forget, material.classifier[erasure.forget_labels]
    generator = erasure.generator(salt=11)
    adapter = adapt(material.tower, names, rank=parameters.adapter_rank, generator=generator)
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=parameters.learning_rate, weight_decay=0.0)
    forgotten = torch.tensor(erasure.forget_labels, device=texts.device)
    history: list[float] = []
    for step in range(parameters.forget_steps):
        picked = torch.randint(len(images.inputs), (BATCH,), generator=generator)
        with erasure.precision():
            seen = features(material.tower, adapter.weights(), images.inputs[picked], material.start)
        history.append(float(torch.isin((seen @ material.classifier.T).argmax(dim=1), forgotten).float().mean()))
        loss = forget_loss(seen, texts)
        erasure.step(step + 1, parameters.forget_steps, loss=loss.item(), forget_accuracy=history[-1])
        if len(history) > 1 and sum(history[-2:]) / 2 <= RECOGNISED:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    merge(material.tower, {name: weight.detach() for name, weight in adapter.weights().items()})
    erasure.notes["forgetting"] = {"steps": len(history), "forget_accuracy": history[-1]}
