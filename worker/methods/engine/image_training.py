"""Training the last part of the image tower on forget images: what `delete`, `pbu` and
`gradient_ascent` share.

The text tower stays as it is. Images are brought once as far as the first layer that may change.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from shared.schemas.methods import ImageTrainingParameters
from worker.methods.engine.adapters import adapt, features, merge
from worker.methods.engine.prepared_data import Images, Material
from worker.methods.engine.recall import allowed_recall, encoded, recall_of
from worker.methods.frame import Erasure

BATCH = 24
LOOK_EVERY, GROWTH = 4, 1.5
"""Steps between two looks at the calibration images, and by how much the learning rate grows where
too much is left.

What suits one model ruins the next: a rate that starts low finds, within a factor of 1.5, the
lowest that does."""

Weights = Mapping[str, Tensor]
Loss = Callable[[Tensor, Images, Weights], Tensor]
"""Of unit features [N, d] of a batch of images, and the weights that made them, by their names
in the image tower.
"""


def train(
    erasure: Erasure, material: Material, loss_of: Loss, *, until_forgotten: bool = True
) -> None:
    """Minimise a loss by AdamW over the weights in `depth` of the image tower, and write them into
    the model.

    With `until_forgotten` it stops once calibration images are recognised no more often than
    half of what the request allows, since every further step costs what stays; until then the
    learning rate grows from look to look."""
    parameters = erasure.parameters_as(ImageTrainingParameters)
    generator = erasure.generator(salt=30)
    adapter = adapt(material.tower, material.candidates, rank=None, generator=generator)
    optimizer = torch.optim.AdamW(
        adapter.parameters(), lr=parameters.learning_rate, weight_decay=0.0
    )
    recall, done = 1.0, 0
    while done < parameters.steps:
        batch = material.forget.sample(BATCH, generator)
        with erasure.precision():
            seen = features(material.tower, adapter.weights(), batch.inputs, material.start)
        loss = loss_of(seen, batch, adapter.weights())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        done += 1
        rate = optimizer.param_groups[0]["lr"]
        metrics = {"loss": loss.item(), "learning_rate": rate}
        if until_forgotten and (done % LOOK_EVERY == 0 or done == parameters.steps):
            recall = recall_of(
                material, encoded(erasure, material, adapter.weights(), material.calibration_forget)
            )
            metrics["recall"] = recall
            optimizer.param_groups[0]["lr"] = GROWTH * rate
        erasure.step(done, parameters.steps, **metrics)
        if recall <= allowed_recall(erasure):
            break
    merge(material.tower, adapter.weights())
    erasure.notes["training"] = {"steps": done, "weights": len(material.candidates), **metrics}


def logits(material: Material, seen: Tensor) -> Tensor:
    """Return s v W^T [N, C] over the request's labels, of unit features [N, d]."""
    return material.scale * seen @ material.classifier.T
