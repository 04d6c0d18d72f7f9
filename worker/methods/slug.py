"""SLUG: one layer, one gradient, one step (Cai et al. 2024, arXiv 2407.11867).

    g_f = grad of mean_f (1 - v . t)        g_r = grad of CLIP's contrastive loss on retain images
    importance_l = ||g_f,l|| / ||theta_l||       alignment_l = |cos(g_f,l, g_r,l)|
    theta_l <- theta_l + lambda g_f,l           for one layer l

For each tower apart, the layers on the Pareto front are tried: no other is more important and
less aligned. lambda starts at a tenth of ||theta_l|| / ||g_f,l||, doubles until enough is
forgotten, then is halved towards the shortest step that does. Layer and lambda are chosen on
images set aside, where the published search uses those that it reports."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from shared.errors import JobFailure
from shared.schemas.methods import MethodParameters, SlugParameters
from shared.states import Stage
from worker.clip import encode_texts
from worker.methods.engine.adapters import features
from worker.methods.engine.calibration import Calibration, Judged, texts_of
from worker.methods.engine.captioned_pairs import (
    BATCH,
    Pairs,
    contrastive,
    forget_pairs,
    retain_pairs,
)
from worker.methods.engine.prepared_data import ENCODE_BATCH, Images, Material
from worker.methods.engine.recall import allowed_recall
from worker.methods.frame import Erasure, MethodStage

FIRST_STEP = 0.1
MOST_BATCHES = 16
NOT_WEIGHTS = ("bias", "logit_", "position", "embedding")
IMAGE = "visual."

Gradients = Mapping[str, Tensor]


class Layer(NamedTuple):
    """A candidate and what the gradients say of it."""

    name: str
    importance: float
    alignment: float


class Patch(NamedTuple):
    """One step in one layer, and what calibration images say of it."""

    layer: Layer
    step: float
    judged: Judged


def stages(parameters: MethodParameters) -> tuple[MethodStage, ...]:
    """Return the one stage."""
    del parameters  # the stage reads them from the erasure
    return (MethodStage(Stage.FORGETTING, patch),)


def patch(erasure: Erasure) -> None:
    """Find the layer and the step, and take it.

    Raises:
        JobFailure: `method_failed`: no step in any layer makes calibration images less recognised.
    """
    parameters = erasure.parameters_as(SlugParameters)
    material = Material(erasure, parameters)
    calibration = Calibration(erasure, material)
    gone, kept = gradients_of(erasure, material)
    fronts = [
        pareto_front(layers)[: parameters.layers]
        for layers in layers_of(erasure, parameters, gone, kept)
    ]
    layers = [layer for front in fronts for layer in front]
    tried = []
    for number, layer in enumerate(layers):
        tried.append(
            _search(
                erasure,
                layer,
                _judge_of(erasure, material, calibration, layer, gone),
                gone,
                parameters,
            )
        )
        erasure.step(
            number + 1, len(layers), recall=tried[-1].judged.recall, kept=tried[-1].judged.kept
        )
    before = calibration.judge(
        calibration.forget.original, calibration.retain.original, calibration.texts
    )
    best = max(tried, key=lambda found: found.judged.rank(erasure), default=None)
    if best is None or best.judged.recall >= before.recall:
        raise JobFailure(
            "method_failed", "No step in any single layer makes calibration images less recognised."
        )
    with torch.no_grad():
        erasure.clip.model.get_parameter(best.layer.name).add_(
            gone[best.layer.name], alpha=best.step
        )
    erasure.notes["patch"] = _note(best)
    erasure.notes["tried"] = [_note(found) for found in tried]


def gradients_of(erasure: Erasure, material: Material) -> tuple[Gradients, Gradients]:
    """Return (g_f, g_r), averaged over batches of the forget and of the retain images."""
    model = erasure.clip.model.requires_grad_()
    generator = erasure.generator(salt=50)

    def of(
        draw: Callable[..., Pairs], loss_of: Callable[[Tensor, Tensor], Tensor], batches: int
    ) -> Gradients:
        model.zero_grad(set_to_none=True)
        for _ in range(batches):
            pairs = draw(erasure, material, generator)
            with erasure.precision():
                images = material.tower(pairs.images.inputs, material.start)
                texts = encode_texts(erasure.clip, pairs.texts).float()
            (loss_of(images, texts) / batches).backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    counts = [
        min(MOST_BATCHES, -(-len(i.labels) // BATCH)) for i in (material.forget, material.retain)
    ]
    gone = of(forget_pairs, lambda v, t: (1 - (v * t).sum(dim=-1)).mean(), counts[0])
    kept = of(retain_pairs, lambda v, t: contrastive(v, t, material.scale), counts[1])
    model.zero_grad(set_to_none=True)
    model.requires_grad_(False)
    return gone, kept


def pareto_front(layers: list[Layer]) -> list[Layer]:
    """Return the layers that no other beats in both respects, the most important first."""
    front = [
        one
        for one in layers
        if not any(o.importance > one.importance and o.alignment < one.alignment for o in layers)
    ]
    return sorted(front, key=lambda layer: layer.importance, reverse=True)


def layers_of(
    erasure: Erasure, parameters: SlugParameters, gone: Gradients, kept: Gradients
) -> list[list[Layer]]:
    """Return the candidates of each tower that is asked for."""
    towers: dict[bool, list[Layer]] = {True: [], False: []}
    for name, weight in erasure.clip.model.named_parameters():
        of_image = name.startswith(IMAGE)
        asked = parameters.towers == "both" or of_image == (parameters.towers == "image")
        if (
            not asked
            or name not in gone
            or any(word in name for word in NOT_WEIGHTS)
            or not gone[name].any()
        ):
            continue
        alignment = F.cosine_similarity(
            gone[name].flatten(), kept.get(name, gone[name]).flatten(), dim=0
        ).abs()
        towers[of_image].append(
            Layer(name, float(gone[name].norm() / weight.norm()), float(alignment))
        )
    return list(towers.values())


def _search(
    erasure: Erasure,
    layer: Layer,
    judge: Callable[[float], Judged],
    gone: Gradients,
    parameters: SlugParameters,
) -> Patch:
    """Return the best step in one layer."""
    weight = erasure.original.model.get_parameter(layer.name)
    step = FIRST_STEP * float(weight.norm() / gone[layer.name].norm())
    low, high, found = 0.0, float("inf"), []
    for _ in range(parameters.rounds):
        found.append(Patch(layer, step, judge(step)))
        if found[-1].judged.recall <= allowed_recall(erasure):
            high = step
        else:
            low = step
        step = 2 * step if high == float("inf") else (low + high) / 2
    return max(found, key=lambda patch: (patch.judged.rank(erasure), -patch.step))


def _judge_of(
    erasure: Erasure, material: Material, calibration: Calibration, layer: Layer, gone: Gradients
) -> Callable[[float], Judged]:
    """Return what judges the length of a step: images enter at the layer, texts are embedded
    anew.
    """
    parameter = erasure.clip.model.get_parameter(layer.name)
    start, gradient = parameter.detach().clone(), gone[layer.name]

    @torch.no_grad()
    def of_text(step: float) -> Judged:
        parameter.copy_(start + step * gradient)
        texts = texts_of(erasure, erasure.clip)
        parameter.copy_(start)
        return calibration.judge(calibration.forget.original, calibration.retain.original, texts)

    if not layer.name.startswith(IMAGE):
        return of_text
    name = layer.name.removeprefix(IMAGE)
    segment = material.tower.segment_of(name)
    forget, retain = (
        _advanced(erasure, material, images, segment)
        for images in (calibration.forget, calibration.retain)
    )

    @torch.no_grad()
    def of_image(step: float) -> Judged:
        weights = {name: start + step * gradient}
        with erasure.precision():
            seen = [
                torch.cat(
                    [
                        features(material.tower, weights, part, segment)
                        for part in inputs.split(ENCODE_BATCH)
                    ]
                )
                for inputs in (forget, retain)
            ]
        return calibration.judge(seen[0], seen[1], calibration.texts)

    return of_image


@torch.no_grad()
def _advanced(erasure: Erasure, material: Material, images: Images, segment: int) -> Tensor:
    """Return what enters `segment` when images pass the layers before it."""
    if segment == material.start:
        return images.inputs
    with erasure.precision():
        parts = images.inputs.split(ENCODE_BATCH)
        return torch.cat([material.original(part, material.start, segment) for part in parts])


def _note(found: Patch) -> dict[str, Any]:
    return {"step": found.step, **found.layer._asdict(), **found.judged._asdict()}
