"""A CLIP model in memory, with all that is needed to use it."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

Transform = Callable[[Image.Image], Tensor]


@dataclass(frozen=True, slots=True)
class Clip:
    """An open_clip model and what belongs to it.

    `transform` is the evaluation transform: PIL image -> float32 [3, H, W], normalised by `mean`
    and `std`."""

    model: torch.nn.Module
    tokenizer: Callable[[list[str]], Tensor]
    transform: Transform
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    image_size: int
    architecture: str
    config: dict[str, Any]
    """As in `open_clip_config.json`: `model_cfg` and `preprocess_cfg`."""
    digest: str
    """SHA-256 of the weights that were loaded."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    @property
    def logit_scale(self) -> Tensor:
        """s = exp(logit_scale), the factor of the cosine in every logit (a scalar, detached)."""
        return self.model.logit_scale.detach().exp()  # type: ignore[operator]

    def frozen_twin(self) -> "Clip":
        """Return an independent copy that takes no gradient: the teacher and reference of an
        edit.
        """
        twin = copy.deepcopy(self.model).eval().requires_grad_(False)
        return replace(self, model=twin)
