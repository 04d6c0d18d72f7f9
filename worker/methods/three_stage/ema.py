"""An exponential moving average of the weights, against over-fitting (arXiv 2506.03117, stage 2).

    theta_ema <- beta_s theta_ema + (1 - beta_s) theta,    beta_s = min(beta, (s + 1) / (s + 10))

The warm-up of beta_s over the steps s = 0, 1, ... keeps a short run from ending near its
starting point."""

from collections.abc import Mapping

import torch
from torch import Tensor


class Average:
    """A running average of named weights. A decay of 0 keeps the latest weights alone."""

    def __init__(self, weights: Mapping[str, Tensor], decay: float) -> None:
        self.weights = {name: weight.detach().clone() for name, weight in weights.items()}
        self.decay = decay
        self.steps = 0

    @torch.no_grad()
    def update(self, weights: Mapping[str, Tensor]) -> None:
        """Take in the weights after one more step."""
        decay = min(self.decay, (self.steps + 1) / (self.steps + 10))
        for name, weight in weights.items():
            self.weights[name].lerp_(weight, 1 - decay)
        self.steps += 1
