"""The last linear maps of both towers: how to transform what a tower gives without adding a
layer to it.
"""

from typing import Any

import torch
from torch import Tensor, nn

from shared.errors import JobFailure

SMALLEST_CONSTANT = 1e-3
"""Of |sum b / g| / |1 / g|: below it, a constant made of the last LayerNorm would be lost in
rounding.
"""


def image_projection(model: nn.Module) -> Tensor:
    """Return the image tower's last linear map as [width, d], applied from the right, detached.

    Raises:
        JobFailure: `method_failed`: the architecture ends otherwise.
    """
    last = _last_of_images(model)
    return (last.weight.T if isinstance(last, nn.Linear) else last).detach()


@torch.no_grad()
def transform_images(model: nn.Module, matrix: Tensor, offset: Tensor) -> bool:
    """Fold v <- M v + o, for M [d, d] and o [d], into the image tower's last linear map.

    A linear layer has a bias to take the offset. A vision transformer's projection has none, but a
    matrix that reads what is 1 for every image adds the offset exactly.

    Returns:
        whether the tower could take the offset; the matrix is folded in either way.

    Raises:
        JobFailure: `method_failed`: the architecture does not end in a linear map that we know.
    """
    last = _last_of_images(model)
    _multiply(last, matrix)
    if isinstance(last, nn.Linear):
        if last.bias is not None:
            last.bias.add_(offset)
        return last.bias is not None
    reader = constant_reader(model)
    if reader is None:
        return False
    last.add_(torch.outer(reader, offset))
    return True


@torch.no_grad()
def constant_reader(model: nn.Module) -> Tensor | None:
    """Return r [width] with x . r = 1 for every x that enters a vision transformer's projection;
    None where there is none.

    x is a LayerNorm's output, g * n + b, where the entries of n sum to zero: so x . (1 / g) =
    sum b / g for every image."""
    norm: Any = getattr(model.visual, "ln_post", None)
    pooled_by_attention = getattr(model.visual, "attn_pool", None) is not None
    if not isinstance(norm, nn.LayerNorm) or norm.bias is None or pooled_by_attention:
        return None
    reader = 1 / norm.weight
    constant = (norm.bias * reader).sum()
    return reader / constant if constant.abs() > SMALLEST_CONSTANT * reader.norm() else None


@torch.no_grad()
def transform_texts(model: nn.Module, matrix: Tensor) -> None:
    """Fold t <- M t, for M [d, d], into the text tower's last linear map.

    Raises:
        JobFailure: `method_failed`: the architecture does not end in a linear map that we know.
    """
    tower: Any = getattr(model, "text", model)
    _multiply(
        _known("text", (getattr(tower, "text_projection", None), getattr(tower, "proj", None))),
        matrix,
    )


def _last_of_images(model: nn.Module) -> nn.Linear | nn.Parameter:
    """Of vision transformers `proj`, of ResNets attention pooling's `c_proj`, of timm towers
    `head.proj`.
    """
    visual: Any = model.visual
    attention, head = getattr(visual, "attnpool", None), getattr(visual, "head", None)
    return _known(
        "image",
        (
            getattr(visual, "proj", None),
            getattr(attention, "c_proj", None),
            getattr(head, "proj", None),
        ),
    )


def _known(tower: str, candidates: tuple[object, ...]) -> nn.Linear | nn.Parameter:
    for last in candidates:
        if isinstance(last, nn.Linear) or (isinstance(last, nn.Parameter) and last.ndim == 2):
            return last
    raise JobFailure(
        "method_failed",
        f"The {tower} tower of this architecture does not end in a linear map that the closed form "
        "could edit; "
        "try the mode samples_only, or the method three_stage.",
    )


def _multiply(last: nn.Linear | nn.Parameter, matrix: Tensor) -> None:
    if isinstance(last, nn.Linear):
        last.weight.copy_(matrix @ last.weight)
        if last.bias is not None:
            last.bias.copy_(matrix @ last.bias)
    else:
        last.copy_(last @ matrix.T)
