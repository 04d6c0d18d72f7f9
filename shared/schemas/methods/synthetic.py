"""Parameters of the synthetic-sample method (arXiv 2407.07485)."""

from typing import Literal

from pydantic import ConfigDict, Field

from shared.schemas.base import Fraction, Schema

MOST_SAMPLES = 1024
HELD_OUT_SHARE = 0.25
"""Of the samples of each class to be forgotten."""


class SyntheticParameters(Schema):
    """Every field has a default that needs no tuning."""

    model_config = ConfigDict(strict=True)

    mode: Literal["calibrated", "faithful", "samples_only"] = Field(
        "calibrated",
        description="closed form and refinement; the published procedure; samples alone",
    )
    samples_per_class: int = Field(
        16,
        ge=4,
        le=MOST_SAMPLES,
        description="of each class to be forgotten; a quarter is held out",
    )
    bank_samples: int = Field(
        160, ge=8, le=4096, description="of all labels together, for this request and later ones"
    )
    iterations: int = Field(
        24, ge=1, le=3000, description="of gradient ascent on a sample (calibrated, samples_only)"
    )
    published_iterations: int = Field(
        3000, ge=1, le=10_000, description="after which faithful starts a sample anew"
    )
    acceptance: Fraction = Field(0.7, description="confidence at which faithful accepts a sample")
    max_starts: int = Field(
        8, ge=1, le=100, description="how often faithful starts a sample anew before it gives up"
    )
    noise_draws: int = Field(10, ge=1, le=100, description="n of the Lipschitz loss (faithful)")
    max_steps: int | None = Field(
        None, ge=1, le=1000, description="of the optimiser: 30 in faithful, else 120"
    )
    learning_rate: float | None = Field(None, gt=0, lt=1, description="5e-5 in faithful, else 1e-3")


def held_out_samples(count: int) -> int:
    """Return how many of the samples of one class to be forgotten are held out."""
    return max(1, round(HELD_OUT_SHARE * count))
