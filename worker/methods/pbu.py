"""Partially blinded unlearning (Panda et al. 2024, arXiv 2403.16246). Forget images alone.

    minimise  mean log p(y | x)  +  a sum_i F_i / mean(F) (theta_i - theta*_i)^2  +  b ||theta -
    theta*||^2

p = softmax(s v W^T) over the request's labels, theta* the original weights, F the diagonal of
the Fisher information at theta*. Of the data that the model was trained on there is none, so F
is taken on the forget images, for answers drawn from the labels that stay: what it weighs is
what tells those apart. That choice, and dividing by mean(F), are ours."""

import torch
from torch import Tensor
from torch.nn import functional as F

from shared.schemas.methods import MethodParameters, PbuParameters
from shared.states import Stage
from worker.methods.delete import masked_answers
from worker.methods.engine.adapters import features
from worker.methods.engine.image_training import Weights, logits, train
from worker.methods.engine.prepared_data import Images, Material
from worker.methods.frame import Erasure, MethodStage

FISHER_IMAGES = 24


def stages(parameters: MethodParameters) -> tuple[MethodStage, ...]:
    """Return the one stage."""
    del parameters  # the stage reads them from the erasure
    return (MethodStage(Stage.FORGETTING, blind),)


def blind(erasure: Erasure) -> None:
    """Lower the likelihood of the forget images, held back by both stability terms."""
    parameters = erasure.parameters_as(PbuParameters)
    material = Material(erasure, parameters)
    start = {
        name: material.tower.visual.get_parameter(name).detach().clone()
        for name in material.candidates
    }
    fisher = relative_fisher_diagonal(erasure, material)

    def loss(seen: Tensor, batch: Images, weights: Weights) -> Tensor:
        likelihood = -F.cross_entropy(logits(material, seen), batch.labels.to(seen.device))
        return likelihood + stability(weights, start, fisher, parameters)

    train(erasure, material, loss)


def stability(
    weights: Weights, start: Weights, fisher: Weights, parameters: PbuParameters
) -> Tensor:
    """Return a sum_i F_i / mean(F) d_i^2 + b sum_i d_i^2, d being by how much the weights have
    moved.
    """
    moved = {name: (weight - start[name]).square() for name, weight in weights.items()}
    of_fisher = torch.stack([(fisher[name] * square).sum() for name, square in moved.items()]).sum()
    of_all = torch.stack([square.sum() for square in moved.values()]).sum()
    return parameters.fisher * of_fisher + parameters.l2 * of_all


def relative_fisher_diagonal(erasure: Erasure, material: Material) -> dict[str, Tensor]:
    """Return F / mean(F) of each candidate weight: mean squared gradient of log p(y | x), one
    forget image at a time.
    """
    generator = erasure.generator(salt=31)
    images = material.forget.sample(FISHER_IMAGES, generator)
    stays = masked_answers(logits(material, images.original), erasure.forget_labels)
    answers = torch.multinomial(stays.cpu(), 1, generator=generator).flatten().to(stays.device)
    weights = {
        name: material.tower.visual.get_parameter(name).detach().requires_grad_()
        for name in material.candidates
    }
    squares = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for image, answer in zip(images.inputs.float(), answers, strict=True):
        seen = features(material.tower, weights, image[None], material.start)
        likelihood = F.log_softmax(logits(material, seen), dim=1)[0, answer]
        gradients = torch.autograd.grad(likelihood, list(weights.values()), materialize_grads=True)
        for name, gradient in zip(weights, gradients, strict=True):
            squares[name] += gradient.square()
    mean = torch.cat([square.flatten() for square in squares.values()]).mean().clamp(min=1e-30)
    return {name: square / mean for name, square in squares.items()}
