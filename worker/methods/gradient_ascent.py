"""Gradient ascent on forget images (NegGrad; Golatkar et al. 2020, arXiv 1911.04933): the control
that others must beat.

    maximise CE(s v W^T, y)        over the forget images, W from the request's labels

It takes its steps and looks at nothing: what it destroys besides the target is what the other
methods are there to save."""

from torch import Tensor
from torch.nn import functional as F

from shared.schemas.methods import GradientAscentParameters, MethodParameters
from shared.states import Stage
from worker.methods.engine.image_training import Weights, logits, train
from worker.methods.engine.prepared_data import Images, Material
from worker.methods.frame import Erasure, MethodStage


def stages(parameters: MethodParameters) -> tuple[MethodStage, ...]:
    """Return the one stage."""
    del parameters  # the stage reads them from the erasure
    return (MethodStage(Stage.FORGETTING, ascend),)


def ascend(erasure: Erasure) -> None:
    """Train the image tower to be wrong on the forget images."""
    material = Material(erasure, erasure.parameters_as(GradientAscentParameters))

    def loss(seen: Tensor, batch: Images, _: Weights) -> Tensor:
        return -F.cross_entropy(logits(material, seen), batch.labels.to(seen.device))

    train(erasure, material, loss, until_forgotten=False)
