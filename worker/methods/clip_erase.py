"""CLIPErase (Yang et al. 2024, arXiv 2410.23330): both towers, three losses.

    L = a L_RM + b L_FM + c L_CM

    L_FM = mean_f v . t                                               forgetting: forget images and
    their texts part L_RM = CLIP's contrastive loss on retain images and texts         retention
    L_CM = mean_r KL(p_o(t | v) || p(t | v)) + KL(p_o(v | t) || p(v | t))     consistency with the
    original model

p are softmaxes of s v . t over a batch, p_o those of the original model. As published, a, b, c =
1, 3, 3 and the best of the run is taken on images set aside. Ours: a batch holds one retain
image of a label, the learning rate grows from look to look, and the run ends once enough is
forgotten."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shared.schemas.methods import ClipEraseParameters, MethodParameters
from shared.states import Stage
from worker.clip import encode_texts
from worker.clip.embeddings import embed_texts
from worker.methods.engine.calibration import Calibration, Judged, texts_of
from worker.methods.engine.captioned_pairs import contrastive, forget_pairs, retain_pairs
from worker.methods.engine.image_training import GROWTH, LOOK_EVERY
from worker.methods.engine.prepared_data import ENCODE_BATCH, Images, Material
from worker.methods.engine.recall import allowed_recall
from worker.methods.frame import Erasure, MethodStage

MOST_GROWTH = 20.0
"""Of the learning rate, over the run: beyond it both towers drift apart on everything."""


def stages(parameters: MethodParameters) -> tuple[MethodStage, ...]:
    """Return the one stage."""
    del parameters  # the stage reads them from the erasure
    return (MethodStage(Stage.FORGETTING, erase),)


def erase(erasure: Erasure) -> None:
    """Train both towers and keep the weights of the best look at the calibration images."""
    parameters = erasure.parameters_as(ClipEraseParameters)
    material = Material(erasure, parameters)
    calibration, generator = Calibration(erasure, material), erasure.generator(salt=40)
    trained = trained_parameters(erasure.clip.model)
    optimizer = torch.optim.Adam(trained, lr=parameters.learning_rate)
    best, weights, done = _look(erasure, material, calibration), _copies(trained), 0
    while done < parameters.steps and best.recall > allowed_recall(erasure):
        losses = _losses(erasure, material, parameters, generator)
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
        done += 1
        metrics = {name: loss.item() for name, loss in losses.items()}
        if done % LOOK_EVERY == 0 or done == parameters.steps:
            judged = _look(erasure, material, calibration)
            metrics |= judged._asdict()
            group = optimizer.param_groups[0]
            group["lr"] = min(GROWTH * group["lr"], MOST_GROWTH * parameters.learning_rate)
            if judged.rank(erasure) > best.rank(erasure):
                best, weights = judged, _copies(trained)
        erasure.step(done, parameters.steps, **metrics)
    with torch.no_grad():
        for parameter, weight in zip(trained, weights, strict=True):
            parameter.copy_(weight)
    erasure.clip.model.requires_grad_(False)
    erasure.notes["training"] = {"steps": done} | best._asdict()


def trained_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Return every parameter of both towers, set to take gradients; the logit scale is none of
    theirs.
    """
    trained = [
        parameter for name, parameter in model.named_parameters() if not name.startswith("logit_")
    ]
    for parameter in trained:
        parameter.requires_grad_()
    return trained


def consistency_loss(original: Tensor, current: Tensor) -> Tensor:
    """Return mean KL(softmax(original) || softmax(current)) of logits [N, N], over rows and over
    columns.
    """
    both = ((original, current), (original.T, current.T))
    parts = [
        F.kl_div(F.log_softmax(new, 1), F.softmax(old, 1), reduction="batchmean")
        for old, new in both
    ]
    return torch.stack(parts).sum()


def _losses(
    erasure: Erasure,
    material: Material,
    parameters: ClipEraseParameters,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Return each weighted loss on a batch of its own."""
    gone, kept = (draw(erasure, material, generator) for draw in (forget_pairs, retain_pairs))
    with erasure.precision():
        images = material.tower(torch.cat([gone.images.inputs, kept.images.inputs]), material.start)
        texts = encode_texts(erasure.clip, gone.texts + kept.texts).float()
    (v_gone, v_kept), (t_gone, t_kept) = (
        x.split([len(gone.texts), len(kept.texts)]) for x in (images, texts)
    )
    before = material.scale * kept.images.original @ embed_texts(erasure.original, kept.texts).T
    return {
        "forgetting_loss": parameters.forgetting * (v_gone * t_gone).sum(dim=-1).mean(),
        "retention_loss": parameters.retention * contrastive(v_kept, t_kept, material.scale),
        "consistency_loss": parameters.consistency
        * consistency_loss(before, material.scale * v_kept @ t_kept.T),
    }


@torch.no_grad()
def _look(erasure: Erasure, material: Material, calibration: Calibration) -> Judged:
    def seen(images: Images) -> Tensor:
        with erasure.precision():
            return torch.cat(
                [material.tower(part, material.start) for part in images.inputs.split(ENCODE_BATCH)]
            )

    return calibration.judge(
        seen(calibration.forget), seen(calibration.retain), texts_of(erasure, erasure.clip)
    )


def _copies(trained: list[nn.Parameter]) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in trained]
