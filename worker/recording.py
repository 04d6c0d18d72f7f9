"""Keeps what a method reports step by step: the forgetting curves of the report."""

import math
from collections.abc import Mapping

from shared.schemas.measures import Curve, CurvePoint
from shared.states import Stage
from worker.ports import Progress

CURVE_PREFIX = "steps."
"""Begins the names of these curves; `steps.forgetting.forget_accuracy` is one."""
MOST_POINTS = 200
"""Of a curve in the report; a longer one is thinned evenly, its first and last point are kept."""

Steps = dict[str, dict[str, list[tuple[float, float]]]]
"""Stage -> metric -> (step, value), as JSON can hold it."""


class Recording:
    """Passes progress on, and keeps every finite number that came with a step.

    A stage that counts from the start again (another round, another try) goes on where its last
    count ended."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.steps: Steps = {}

    def stage(self, stage: Stage) -> None:
        """Pass it on."""
        self._progress.stage(stage)

    def step(
        self,
        stage: Stage,
        step: int,
        total: int | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        """Keep the metrics and pass the step on."""
        for name, value in (metrics or {}).items():
            if math.isfinite(value):
                points = self.steps.setdefault(stage.value, {}).setdefault(name, [])
                points.append((_continued(points, step), float(value)))
        self._progress.step(stage, step, total, metrics)

    def curves(self) -> tuple[Curve, ...]:
        """Return a curve for each metric of each stage, in the order in which they came."""
        return tuple(
            Curve(
                name=f"{CURVE_PREFIX}{stage}.{metric}",
                title=f"{stage.capitalize()}: {metric.replace('_', ' ')}",
                x_label="step",
                y_label=metric.replace("_", " "),
                unlearned=tuple(CurvePoint(x=x, y=y) for x, y in _thinned(points)),
            )
            for stage, metrics in self.steps.items()
            for metric, points in metrics.items()
        )


def _continued(points: list[tuple[float, float]], step: int) -> float:
    """Return where a step stands on the curve: its own number, or one on where the count began
    again.
    """
    return float(step) if not points or step > points[-1][0] else points[-1][0] + 1


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    if len(points) <= MOST_POINTS:
        return points
    stride = (len(points) - 1) / (MOST_POINTS - 1)
    return [points[round(number * stride)] for number in range(MOST_POINTS)]
