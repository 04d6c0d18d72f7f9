"""DELETE: decoupled distillation to erase (Zhou et al. 2025, arXiv 2503.23751). Forget images
alone.

    q = softmax(z_0, with the columns of what is forgotten at minus infinity)        z = s v W^T
    over the request's labels minimise KL(q || softmax(z))

z_0 are the original model's logits: what it would say of a forget image if it did not know the
class. The direction of the divergence and the optimiser are ours."""

from torch import Tensor
from torch.nn import functional as F

from shared.schemas.methods import DeleteParameters, MethodParameters
from shared.states import Stage
from worker.methods.engine.image_training import Weights, logits, train
from worker.methods.engine.prepared_data import Images, Material
from worker.methods.frame import Erasure, MethodStage


def stages(parameters: MethodParameters) -> tuple[MethodStage, ...]:
    """Return the one stage."""
    del parameters  # the stage reads them from the erasure
    return (MethodStage(Stage.FORGETTING, distil),)


def distil(erasure: Erasure) -> None:
    """Train the image tower until the forget images look to it as to one that does not know
    their class.
    """
    material = Material(erasure, erasure.parameters_as(DeleteParameters))

    def loss(seen: Tensor, batch: Images, _: Weights) -> Tensor:
        masked = masked_answers(logits(material, batch.original), erasure.forget_labels)
        return F.kl_div(F.log_softmax(logits(material, seen), dim=1), masked, reduction="batchmean")

    train(erasure, material, loss)


def masked_answers(teacher: Tensor, forgotten: list[int]) -> Tensor:
    """Return q [N, C]: the softmax of logits [N, C] over the labels that stay, 0 for the
    forgotten ones.
    """
    masked = teacher.clone()
    masked[:, forgotten] = float("-inf")
    return masked.softmax(dim=1)
