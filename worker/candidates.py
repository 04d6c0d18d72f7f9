"""`auto` at work: methods tried one after the other, each judged like any other, until one passes.

A method that images were given for is first looked at on the calibration images, which no test
shows; only one that would do there is judged by the gate. Each further look at the test images
makes it likelier that one passes by luck, so they are counted and the report says how many there
were. Where nothing passes, what came nearest is what the gate refuses.

Every candidate has checkpoints of its own, and what became of it is kept: another attempt goes
on where the last one stopped."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch

from shared.errors import JobFailure
from shared.ports.object_storage import ObjectMissing, Storage
from shared.schemas.base import Schema
from shared.schemas.methods import AutoParameters
from shared.schemas.report import Report, TargetResult, ThresholdResult
from shared.schemas.request import ErasureRequest, Method, Thresholds
from shared.schemas.spec import JobSpec
from shared.states import Stage
from worker.clip import Clip
from worker.evaluation.evaluation import Measurement, evaluation_result
from worker.evaluation.features import features_of
from worker.evaluation.subject import Subject
from worker.evaluation.views import Hits
from worker.gate import judge
from worker.methods.auto import candidates
from worker.methods.frame import Erasure
from worker.ports import Progress

Erase = Callable[[ErasureRequest, str, Progress], Erasure]
"""Run a request's method, with its checkpoints below a prefix."""
Examine = Callable[[Erasure], Report]
"""Measure an erasure on the test images and judge it; leaves the weights where they are
published from.
"""


class Tried(Schema):
    """One candidate and what became of it."""

    method: str
    parameters: dict[str, Any]
    outcome: Literal["passed", "missed", "failed"]
    judged_on: Literal["calibration images", "test images"] | None = None
    measured: tuple[ThresholdResult, ...] = ()
    reason: str | None = None

    @property
    def distance(self) -> tuple[bool, float]:
        """How far it is from passing; what the gate has judged comes before what it has not."""
        return self.judged_on != "test images", sum(
            abs(t.value - t.limit) for t in self.measured if not t.passed
        )


class Named:
    """Progress whose metrics carry a method's name, so that the series of candidates stay apart."""

    def __init__(self, progress: Progress, name: str) -> None:
        self._progress, self._name = progress, name

    def stage(self, stage: Stage) -> None:
        """Say that a stage begins."""
        self._progress.stage(stage)

    def step(
        self,
        stage: Stage,
        step: int,
        total: int | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        """Say that a step is done."""
        named = {f"{self._name}.{metric}": value for metric, value in (metrics or {}).items()}
        self._progress.step(stage, step, total, named)


class Chooser:
    """The candidates of one job."""

    def __init__(
        self,
        spec: JobSpec,
        storage: Storage,
        progress: Progress,
        *,
        screening: Measurement | None,
        erase: Erase,
        examine: Examine,
    ) -> None:
        self._spec, self._storage, self._progress = spec, storage, progress
        self._screening, self._erase, self._examine = screening, erase, examine
        parameters = spec.request.method.parsed()
        if not isinstance(parameters, AutoParameters):
            raise TypeError("only auto chooses among methods")
        self._methods = candidates(spec.request, parameters, spec.thresholds)

    def choose(self) -> Report:
        """Return the report of the first candidate that passes, else of the one that came nearest.

        Raises:
            JobFailure: `method_failed`: none of them could be run at all.
        """
        tried: list[Tried] = []
        for number, method in enumerate(self._methods):
            row = self._kept(number)
            if row is None:
                row, report = self._try(number, method)
                if report is not None and report.verdict == "passed":
                    return self._told(report, method, [*tried, row])
                self._keep(number, row)
            tried.append(row)
        return self._nearest(tried)

    def _try(self, number: int, method: Method) -> tuple[Tried, Report | None]:
        """Run one candidate and judge it; the report is missing where the gate was not asked."""
        try:
            erasure = self._erased(number, method)
        except JobFailure as failure:
            if failure.code != "method_failed":
                raise
            row = Tried(
                method=method.name,
                parameters=method.parameters,
                outcome="failed",
                reason=failure.detail,
            )
            return row, None
        screened = self._screen(erasure)
        if any(not result.passed for result in screened):
            return self._row(method, "missed", "calibration images", screened), None
        report = self._examine(erasure)
        outcome: Literal["passed", "missed"] = "passed" if report.verdict == "passed" else "missed"
        return self._row(method, outcome, "test images", report.thresholds), report

    def _nearest(self, tried: list[Tried]) -> Report:
        """Return the gate's report of the candidate that came nearest. The gate may let it pass
        where screening did not.
        """
        judged = [number for number, row in enumerate(tried) if row.outcome != "failed"]
        if not judged:
            reasons = "; ".join(f"{row.method}: {row.reason}" for row in tried)
            raise JobFailure(
                "method_failed", f"None of the methods that were tried could be run. {reasons}"
            )
        number = min(judged, key=lambda i: tried[i].distance)
        method = self._methods[number]
        report = self._examine(self._erased(number, method))
        outcome: Literal["passed", "missed"] = "passed" if report.verdict == "passed" else "missed"
        tried[number] = self._row(method, outcome, "test images", report.thresholds)
        return self._told(report, method, tried)

    def _erased(self, number: int, method: Method) -> Erasure:
        """Run a candidate, or read it back from its checkpoints."""
        request = self._spec.request.model_copy(update={"method": method})
        torch.manual_seed(request.seed)  # as if no other had been before it
        prefix = f"{self._spec.checkpoint_prefix}/{number}-{method.name}"
        return self._erase(request, prefix, Named(self._progress, method.name))

    def _screen(self, erasure: Erasure) -> tuple[ThresholdResult, ...]:
        """Judge an erasure on the calibration images, as the gate does; less than one image too
        many is let pass.
        """
        if self._screening is None:
            return ()
        before, after = (_hits(clip, self._screening) for clip in (erasure.original, erasure.clip))
        found = evaluation_result(self._screening, before, after)
        limits = self._spec.thresholds
        thresholds = Thresholds(
            max_forget_accuracy=limits.max_forget_accuracy,
            max_retain_drop=limits.max_retain_drop if found.retain else None,
        )
        sizes = {
            "max_forget_accuracy": found.forget.after.n if found.forget else 1,
            "max_retain_drop": found.retain.after.n if found.retain else 1,
        }
        results = judge(
            thresholds, TargetResult(accuracy=found.forget, synthetic_accuracy=None), (found,)
        )
        return tuple(
            r.model_copy(update={"passed": r.passed or (r.value - r.limit) * sizes[r.measure] < 1})
            for r in results
        )

    def _row(
        self,
        method: Method,
        outcome: Literal["passed", "missed"],
        where: Literal["calibration images", "test images"],
        measured: tuple[ThresholdResult, ...],
    ) -> Tried:
        return Tried(
            method=method.name,
            parameters=method.parameters,
            outcome=outcome,
            judged_on=where,
            measured=measured,
        )

    def _told(self, report: Report, method: Method, tried: list[Tried]) -> Report:
        """Return a report that says what was tried before."""
        looks = sum(row.judged_on == "test images" for row in tried)
        notes = {
            "chosen": method.name,
            "tried": [row.model_dump(mode="json") for row in tried],
            "looks": looks,
        }
        limits = report.limits if looks < 2 else (*report.limits, _several_looks(looks))
        return report.model_copy(update={"method": report.method | notes, "limits": limits})

    def _kept(self, number: int) -> Tried | None:
        """Return what an earlier attempt found out about a candidate that did not pass."""
        try:
            return Tried.model_validate_json(self._storage.get(self._key(number)))
        except ObjectMissing:
            return None

    def _keep(self, number: int, row: Tried) -> None:
        self._storage.put(self._key(number), row.model_dump_json().encode())

    def _key(self, number: int) -> str:
        return f"{self._spec.checkpoint_prefix}/outcomes/{number}.json"


def _several_looks(looks: int) -> str:
    return (
        f"The method was chosen among several, {looks} of which were judged on the test images: "
        "that one of several meets"
        " a threshold is weaker evidence than that a single one does. What each measured is listed."
    )


def _hits(clip: Clip, measurement: Measurement) -> Hits:
    """Return which images of a measurement a model recognises."""
    view = measurement.view
    return view.hits(Subject(clip, {view.name: features_of(clip, measurement.images)}))
