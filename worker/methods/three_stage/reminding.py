"""Stage 2, reminding: bring back what stage 1 took along, without bringing back the target (arXiv
2506.03117, stage 2).

    minimise over LoRA   c CE(s v(x_r) W^T + p log pi, y_r)                          retain images,
    contrastive loss
                       + d mean(1 - v(x) . v_0(x))                                   retain and
                       unlabelled images, distillation + g mean relu(max_T s v(x_f) . t_k - max_R s
                       v(x_f) . t_k + m)      forget images, guard

The first term is the paper's. pi is the share of each class in a batch (`class_prior`): a batch
that is half siblings would otherwise teach to see their class everywhere. Alone the term teaches
the target again, since retain images share its text and its features. The guard holds it down,
under an ensemble of prompts rather than one; the distillation keeps all other images where they
were: proxy images, and those of earlier erasures, which the model that this one starts from does
not know. Where images set aside are still recognised after a round of steps, another follows
with twice the guard g, as long as that helps. Retain images may first be aligned with the
statistics of the original model (`alignment`)."""

import torch
from torch import Tensor

from shared.schemas.methods import ThreeStageParameters
from worker.data_parallel import add_up_gradients
from worker.methods.engine.adapters import merge, shared_features
from worker.methods.engine.prepared_data import Images, Material, balanced_indices
from worker.methods.engine.recall import allowed_recall, encoded, recall_of
from worker.methods.frame import Erasure
from worker.methods.three_stage.alignment import aligned_retain
from worker.methods.three_stage.directions import adapter_for
from worker.methods.three_stage.ema import Average
from worker.methods.three_stage.losses import contrastive_loss, distillation_loss, guard_loss

RETAIN_BATCH, PROXY_BATCH, FORGET_BATCH = 24, 16, 12
SUBGROUP_MARGIN, CLASS_MARGIN = 2.0, 6.0
ROUNDS = 4
"""At most; the guard weighs twice as much in each as in the one before. A model that is very
sure of its images needs it.
"""


def reminding(erasure: Erasure, material: Material, parameters: ThreeStageParameters) -> None:
    """Fine-tune the edited layers on retain, proxy and forget images, in rounds, until the guard
    holds.
    """
    if not parameters.reminding:
        return
    retain = aligned_retain(erasure, material, parameters)
    generator = erasure.generator(salt=20)
    rounds: list[dict[str, float]] = []
    guard = parameters.guard
    one_image = 1 / len(
        material.calibration_forget.labels
    )  # a single odd one is not worth the damage of another round
    enough = max(allowed_recall(erasure), one_image)
    while len(rounds) < ROUNDS:
        done = len(rounds) * parameters.remind_steps
        losses = _round(
            erasure,
            material,
            parameters.model_copy(update={"guard": guard}),
            retain,
            generator,
            done,
        )
        recall = _recall(erasure, material)
        helped = not rounds or recall < rounds[-1]["recall"]
        rounds.append({"guard": guard, "recall": recall, **losses})
        if not guard or recall <= enough or not helped:
            break
        guard *= 2
    erasure.notes["reminding"] = rounds


def _round(
    erasure: Erasure,
    material: Material,
    parameters: ThreeStageParameters,
    retain: Images,
    generator: torch.Generator,
    done: int,
) -> dict[str, float]:
    """Train for `remind_steps`, after `done` steps of earlier rounds; return the last losses."""
    adapter = adapter_for(erasure, material, parameters, generator)
    optimizer = torch.optim.AdamW(
        adapter.parameters(), lr=parameters.learning_rate, weight_decay=0.0
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, parameters.remind_steps)
    average = Average(adapter.weights(), parameters.ema_decay)
    prior = (
        parameters.prior
        * class_prior(erasure, retain, FORGET_BATCH if parameters.guard else 0).log()
    )
    steps = done + parameters.remind_steps
    for step in range(done, steps):
        losses = _losses(erasure, material, parameters, retain, prior, adapter.weights(), generator)
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        add_up_gradients(adapter.parameters())
        optimizer.step()
        schedule.step()
        average.update(adapter.weights())
        erasure.step(step + 1, steps, **{name: loss.item() for name, loss in losses.items()})
    merge(material.tower, average.weights)
    return {name: loss.item() for name, loss in losses.items()}


def _recall(erasure: Erasure, material: Material) -> float:
    """Return the share of calibration images of the target that are still recognised."""
    weights = {name: material.tower.visual.get_parameter(name) for name in material.edited}
    seen = encoded(erasure, material, weights, material.calibration_forget)
    return recall_of(material, seen)


def _losses(
    erasure: Erasure,
    material: Material,
    parameters: ThreeStageParameters,
    retain: Images,
    prior: Tensor,
    weights: dict[str, Tensor],
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Return each weighted loss on one batch of its own images; one pass through the tower
    serves them all.
    """
    kept = retain.where(_retain_indices(erasure, retain, generator))
    other = material.unlabelled(PROXY_BATCH if parameters.distillation else 0, generator)
    gone = material.forget.sample(FORGET_BATCH if parameters.guard else 0, generator)
    with erasure.precision():
        inputs = torch.cat([kept.inputs, other.inputs, gone.inputs])
        seen = shared_features(material.tower, weights, inputs, material.start)
    on_retain, on_proxy, on_forget = seen.split(
        [len(kept.labels), len(other.labels), len(gone.labels)]
    )
    losses = {}
    if parameters.contrastive:
        known = kept.labels >= 0
        labels = kept.labels[known].to(seen.device)
        loss = contrastive_loss(
            on_retain[known], material.classifier, labels, material.scale, prior.to(seen.device)
        )
        losses["contrastive_loss"] = parameters.contrastive * loss
    if parameters.distillation:
        loss = distillation_loss(
            torch.cat([on_retain, on_proxy]), torch.cat([kept.original, other.original])
        )
        losses["distillation_loss"] = parameters.distillation * loss
    if parameters.guard:
        margin = margin_of(erasure, parameters)
        loss = guard_loss(
            on_forget, material.bank.targets, material.bank.rivals, material.scale, margin
        )
        losses["guard_loss"] = parameters.guard * loss
    return losses


def margin_of(erasure: Erasure, parameters: ThreeStageParameters) -> float:
    """Return the guard's margin m: wide where nothing that stays answers to the same words, as
    unseen images need.
    """
    if parameters.margin is not None:
        return parameters.margin
    return SUBGROUP_MARGIN if erasure.request.target.type == "subgroup" else CLASS_MARGIN


def _retain_indices(erasure: Erasure, retain: Images, generator: torch.Generator) -> Tensor:
    """Draw a batch: half of it siblings, where there are any, the rest of all other classes alike.

    The guard pulls at the siblings first, since they share the text of what is forgotten.
    """
    parts = []
    for mask, size in _halves(erasure, retain):
        positions = mask.nonzero().flatten()
        parts.append(positions[balanced_indices(retain.labels[mask], size, generator)])
    return torch.cat(parts)


def class_prior(erasure: Erasure, retain: Images, forget_batch: int) -> Tensor:
    """Return the share [C] of each label in a batch; a forget image counts as one of any label that
    stays.

    Never 0: a label that is never drawn counts as a ten-thousandth of a batch.
    """
    share = torch.zeros(len(erasure.labels))
    for mask, size in _halves(erasure, retain):
        classes = retain.labels[mask].unique()
        share[classes[classes >= 0]] += size / len(classes)
    kept = [index for index in range(len(share)) if index not in erasure.forget_labels]
    share[kept] += forget_batch / len(kept)
    return share / share.sum().clamp(min=1) + 1e-4


def _halves(erasure: Erasure, retain: Images) -> list[tuple[Tensor, int]]:
    """Return masks of the siblings and of all others, and how many of each a batch holds; no
    mask is empty.
    """
    siblings = torch.isin(retain.labels, torch.tensor(erasure.forget_labels))
    masks = [mask for mask in (siblings, ~siblings) if mask.any()]
    return [(mask, RETAIN_BATCH // len(masks)) for mask in masks]
