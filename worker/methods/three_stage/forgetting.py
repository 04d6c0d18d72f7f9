"""Stage 1, forgetting: drive the image-text similarity of the forget images down in the chosen
layers (arXiv 2506.03117).

    minimise over LoRA   L_f = mean_i v(x_i) . t        x_i in D_f, t the text of their class

It stops once two batches in a row are not recognised any more: every further step damages what
shares the text, and stage 2 has to mend it."""

import torch
from torch import Tensor

from shared.schemas.methods import ThreeStageParameters
from worker.data_parallel import add_up_gradients
from worker.methods.engine.adapters import merge, shared_features
from worker.methods.engine.prepared_data import Material
from worker.methods.frame import Erasure
from worker.methods.three_stage.directions import adapter_for
from worker.methods.three_stage.losses import forget_loss
from worker.methods.three_stage.selection import select_layers

BATCH = 24
RECOGNISED = 0.02
"""Share of the last two batches that may still be recognised when the stage stops."""


def forgetting(erasure: Erasure, material: Material, parameters: ThreeStageParameters) -> None:
    """Choose the layers that all stages edit; then make them forget."""
    names = select_layers(erasure, material, parameters)
    material.edit(names)
    if parameters.forgetting:
        _tune(erasure, material, parameters)


def _tune(erasure: Erasure, material: Material, parameters: ThreeStageParameters) -> None:
    images, texts = material.forget, material.classifier[erasure.forget_labels]
    generator = erasure.generator(salt=11)
    adapter = adapter_for(erasure, material, parameters, generator)
    optimizer = torch.optim.AdamW(
        adapter.parameters(), lr=parameters.learning_rate, weight_decay=0.0
    )
    history: list[float] = []
    for step in range(parameters.forget_steps):
        picked = torch.randint(len(images.labels), (BATCH,), generator=generator)
        with erasure.precision():
            seen = shared_features(
                material.tower, adapter.weights(), images.inputs[picked], material.start
            )
        loss = forget_loss(seen, texts)
        history.append(_recognised(erasure, material, seen))
        erasure.step(
            step + 1, parameters.forget_steps, loss=loss.item(), forget_accuracy=history[-1]
        )
        if len(history) > 1 and sum(history[-2:]) / 2 <= RECOGNISED:
            break
        optimizer.zero_grad()
        loss.backward()
        add_up_gradients(adapter.parameters())
        optimizer.step()
    merge(material.tower, adapter.weights())
    erasure.notes["forgetting"] = {"steps": len(history), "forget_accuracy": history[-1]}


def _recognised(erasure: Erasure, material: Material, seen: Tensor) -> float:
    predicted = (seen.detach() @ material.classifier.T).argmax(dim=1).cpu()
    return float(torch.isin(predicted, torch.tensor(erasure.forget_labels)).float().mean())
