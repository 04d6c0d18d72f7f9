"""The null-space method: names in, their directions projected out, no image, milliseconds.

    U [d, r]   orthonormal basis: for each name y the first right singular vector of [t(y, k) -
    mean_c t(c, k)]_k over templates
               k, c being the labels that stay
    v <- (I - alpha U U^T) v         for the tower or towers that are asked for

After Mishra et al. (arXiv 2512.14137), who project the texts of what is forgotten out of the
last linear map. Centring on the label set is ours: it leaves alone the direction that all texts
of a CLIP share, whose loss would hurt every class. The edit is of low rank, so that the report
can hold what takes it back: `undo` in its `method` entry."""

import base64
from collections.abc import Mapping

import torch
from safetensors.torch import save
from torch import Tensor

from shared.schemas.methods import MethodParameters, NullSpaceParameters
from shared.states import Stage
from worker.clip.classifier import template_embeddings
from worker.methods.engine.closed_form import first_direction, independent
from worker.methods.engine.last_layers import transform_images, transform_texts
from worker.methods.engine.vocabulary import TEMPLATES
from worker.methods.frame import Erasure, MethodStage

TEMPLATE_COUNT = 12
"""Besides the request's own: more did not change the direction by much, and embedding texts is
all the time that this takes.
"""
HOW = (
    "For each tensor NAME add NAME.left @ NAME.right to it; the original comes back up to the "
    "rounding of float32. "
    "`patch` is base64 of a safetensors file."
)


def stages(parameters: MethodParameters) -> tuple[MethodStage, ...]:
    """Return the one stage."""
    del parameters  # the stage reads them from the erasure
    return (MethodStage(Stage.FORGETTING, project),)


def project(erasure: Erasure) -> None:
    """Fold the projection into the last linear maps, in place.

    Raises:
        JobFailure: `method_failed`: a tower does not end in a linear map that we know.
    """
    parameters = erasure.parameters_as(NullSpaceParameters)
    basis = basis_of(erasure)
    matrix = torch.eye(len(basis), device=basis.device) - parameters.alpha * basis @ basis.T
    model = erasure.clip.model
    if parameters.towers != "text":
        transform_images(model, matrix, torch.zeros_like(basis[:, 0]))
    if parameters.towers != "image":
        transform_texts(model, matrix)
    patch = low_rank_patch(model.state_dict(), erasure.original.model.state_dict(), basis.shape[1])
    erasure.notes |= {
        "rank": basis.shape[1],
        "undo": {"how": HOW, "patch": base64.b64encode(save(patch)).decode()},
    }
    erasure.step(1, 1)


def basis_of(erasure: Erasure) -> Tensor:
    """Return U [d, r]. A synonym that the names before it cover adds no column."""
    target = erasure.request.target
    templates = tuple(dict.fromkeys((*target.templates, *TEMPLATES[:TEMPLATE_COUNT])))
    stays = [label for label in erasure.labels if label not in target.names()]
    centre = template_embeddings(erasure.original, stays, templates).mean(dim=0)
    names = template_embeddings(erasure.original, target.all_names(), templates)
    basis: Tensor = torch.linalg.qr(
        independent([first_direction(name - centre) for name in names]).directions
    ).Q
    return basis


def low_rank_patch(
    edited: Mapping[str, Tensor], original: Mapping[str, Tensor], rank: int
) -> dict[str, Tensor]:
    """Return factors `<name>.left` and `<name>.right` of original - edited, for each tensor that
    differs.

    A matrix [m, n] gets factors [m, rank] and [rank, n], a vector [m] gets [m, 1] and [1].
    """
    factors: dict[str, Tensor] = {}
    for name, before in original.items():
        difference = (before - edited[name]).float().cpu()
        if not bool(difference.any()):
            continue
        if difference.ndim == 1:
            left, right = difference[:, None], torch.ones(1)
        else:
            u, s, v = torch.linalg.svd(difference, full_matrices=False)
            left, right = u[:, :rank] * s[:rank], v[:rank]
        factors |= {f"{name}.left": left.contiguous(), f"{name}.right": right.contiguous()}
    return factors
