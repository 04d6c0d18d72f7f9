"""Stage 2, reminding: bring back what stage 1 took along, without bringing back the target (arXiv 2506.03117, stage 2).

    min over LoRA of   CE(s v(x_r) W^T, y_r)                       retain images: the contrastive loss
                     + kd  (1 - v(x) . v_0(x))                     retain and unlabelled images: distillation from the original
                     + mu  relu(max_T s v(x_f).t - max_R s v(x_f).t + m)     forget images: the guard

The first term is the paper's. Alone it teaches the target again, because retain images share its text and its features; the
guard is what holds it down, on an ensemble of prompts rather than on one.
"""

import torch
from torch import Tensor

from shared.schemas.methods import ThreeStageParameters
from worker.methods.frame import Erasure
from worker.methods.three_stage.adapters import adapt, features, merge
from worker.methods.three_stage.ema import Average
from worker.methods.three_stage.losses import distillation_loss, guard_loss, soft_loss
from worker.methods.three_stage.material import Material, sibling_indices

RETAIN_BATCH, PROXY_BATCH, FORGET_BATCH = 24, 16, 12


def remind(erasure: Erasure, material: Material, parameters: ThreeStageParameters) -> None:
    """Fine-tune the edited layers on retain, proxy and forget images."""
    names = material.edited_layers()
    generator = erasure.generator(salt=20)
    adapter = adapt(material.tower, names, rank=parameters.adapter_rank, generator=generator)
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=parameters.learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, parameters.remind_steps)
    average = Average(adapter.weights(), parameters.ema_decay)
    for step in range(parameters.remind_steps):
        losses = _losses(erasure, material, parameters, adapter.weights(), generator)
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
        schedule.step()
        average.update(adapter.weights())
        erasure.step(step + 1, parameters.remind_steps, **{name: loss.item() for name, loss in losses.items()})
    merge(material.tower, average.weights)


def _losses(
    erasure: Erasure,
    material: Material,
    parameters: ThreeStageParameters,
    weights: dict[str, Tensor],
    generator: torch.Generator,
) -> dict[str, Tensor]:
    retain, proxy, forget = material.retain, material.proxy, material.forget
    kept = sibling_indices(retain.labels, torch.tensor(erasure.forget_labels), RETAIN_BATCH, generator)
    other = torch.randint(len(proxy.inputs), (PROXY_BATCH,), generator=generator)
    gone = torch.randint(len(forget.inputs), (FORGET_BATCH,), generator=generator)
    inputs = torch.cat([retain.inputs[kept], proxy.inputs[other], forget.inputs[gone]])
    with erasure.precision():
        seen = features(material.tower, weights, inputs, material.start)
    on_retain, on_proxy, on_forget = seen.split([RETAIN_BATCH, PROXY_BATCH, FORGET_BATCH])
    labelled = retain.labels[kept] >= 0
    return {
        "contrastive_loss": parameters.contrastive
        * soft_loss(
            on_retain[labelled],
            retain.original[kept][labelled],
            material.classifier,
            retain.labels[kept][labelled].to(on_retain.device),
            material.scale,
            parameters.hard,
        ),
        "distillation_loss": parameters.distillation
        * distillation_loss(
            torch.cat([on_retain, on_proxy]), torch.cat([retain.original[kept], proxy.original[other]])
        ),
        "guard_loss": parameters.guard
        * guard_loss(on_forget, material.bank.targets, material.bank.rivals, material.scale, parameters.margin),
    }
