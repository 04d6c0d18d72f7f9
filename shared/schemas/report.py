"""The report of a job: what was asked, what was measured before and after, and the verdict.

Every accuracy is top-1 zero-shot accuracy in [0, 1] with its n and a 95 % Wilson interval.
Before and after are measured by the same code on the same images."""

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from shared.schemas.base import Schema
from shared.schemas.measures import Curve, Measure, NotMeasured
from shared.schemas.request import ErasureRequest
from shared.schemas.resolution import RequestWarning, SetRole
from shared.states import Stage

REPORT_VERSION = "1.0"
REPORT_SCHEMA_PATH = f"/schemas/report-{REPORT_VERSION}.json"
"""Where every API serves the JSON Schema of its reports, to anyone."""

Role = Literal["forget", "sibling", "retain"]
"""What a class is to the request: to be forgotten, of the target's class but to be kept, or
another class.
"""


class Estimate(Schema):
    """A share with its sample size and 95 % Wilson interval."""

    value: float
    n: int
    low: float
    high: float


class Change(Schema):
    """The same share before and after."""

    before: Estimate
    after: Estimate


class ClassResult(Schema):
    """One class of one evaluation set."""

    name: str
    role: Role
    accuracy: Change


class EvaluationResult(Schema):
    """One evaluation set."""

    name: str
    role: SetRole
    dataset_digest: str
    labels: tuple[str, ...]
    templates: tuple[str, ...]
    forget: Change | None = Field(
        description="images of what is forgotten; null where the set has none"
    )
    retain: Change | None = Field(description="all other images")
    classes: tuple[ClassResult, ...]


SeenAs = Literal["forget", "retain", "calibration", "proxy", "earlier", "forget_test"]


class Separation(Schema):
    """What two sets of one request have in common. No image is used in two roles."""

    place: str = Field(
        description="the set that gave way: an evaluation set, `target`, or a field of `data`"
    )
    seen_as: SeenAs = Field(description="the field of `data` that it was compared with")
    identical: int = Field(
        ge=0, description="images with the very same file in both; left out of `place`"
    )
    similar: int = Field(
        ge=0,
        description=(
            "further images that look like one of the other set (another format or size); kept"
        ),
    )
    compared: int = Field(
        ge=0, description="images of `place` that were looked at for this; at most 10,000"
    )
    example: str | None = Field(None, description="an identical image, or else a similar one")


class TargetResult(Schema):
    """What became of the target. Null means that the request gave nothing to measure it on."""

    accuracy: Change | None = Field(description="on real images")
    synthetic_accuracy: Change | None = Field(
        description="on held-out synthetic samples, which are not images of anything"
    )
    siblings: Change | None = Field(
        None, description="the rest of the target's class, in a subgroup request"
    )


Bound = Literal["max", "min"]

COUNTED = ("max_forget_accuracy", "max_synthetic_accuracy", "max_earlier_accuracy")
"""Thresholds on the very share that was measured: the value times n is a number of images."""


class ThresholdResult(Schema):
    """One threshold and what was measured."""

    measure: str
    bound: Bound = "max"
    limit: float
    value: float = Field(
        description="what was judged; of a measure of the audit the worse end of its interval"
    )
    passed: bool
    where: str = Field(description="the evaluation set that decided")
    n: int | None = Field(
        None, description="images there; null where nothing was measured or counted"
    )
    low: float | None = Field(
        None, description="lower end of the 95 % interval of what was measured there"
    )
    high: float | None = Field(
        None, description="upper end of the 95 % interval of what was measured there"
    )

    def words(self) -> str:
        """Return in words what was judged: `max_forget_accuracy is 0.0250 (1 of 40; 95 %
        interval 0.004 to 0.13), ...`.
        """
        at_least = "at least " if self.bound == "min" else ""
        found = "; ".join(part for part in (self._count(), self._interval()) if part)
        return (
            f"{self.measure} is {self.value:.4f}{f' ({found})' if found else ''}, allowed "
            f"{at_least}{self.limit:.4f}"
            f" ({self.where})"
        )

    def _count(self) -> str | None:
        if self.n is None:
            return None
        return (
            f"{round(self.value * self.n)} of {self.n}"
            if self.measure in COUNTED
            else f"n = {self.n}"
        )

    def _interval(self) -> str | None:
        if self.low is None or self.high is None:
            return None
        return f"95 % interval {self.low:.2g} to {self.high:.2g}"


class ModelIdentity(Schema):
    """Which weights."""

    id: str | None
    architecture: str
    digest: str = Field(description="SHA-256 of open_clip_model.safetensors")
    made_by: str | None = Field(
        None, description="the job that made it, where it came of an earlier erasure here"
    )


class ModelChange(Schema):
    """What the edit changed in the weights."""

    tensors_changed: int
    tensors_total: int
    parameters_changed: int
    parameters_total: int
    bytes_changed: int = Field(0, description="size of the tensors that changed")
    towers: tuple[Literal["image", "text"], ...]


class StageResult(Schema):
    """What one stage cost. Memory is the peak resident set of the process, and of the device
    where there is one.
    """

    stage: Stage
    seconds: float
    peak_memory_bytes: int
    peak_device_memory_bytes: int | None
    resumed: bool = Field(
        False,
        description="true where the stage was read back from a checkpoint of an earlier attempt",
    )


class Build(Schema):
    """Which code did the work."""

    version: str
    code: str = Field(
        description="SHA-256 over the installed source files, see docs/certificate.md"
    )
    image: str | None = Field(
        description="digest of the container image, where the operator states it"
    )


class Report(Schema):
    """`report.json`."""

    schema_: Literal["/schemas/report-1.0.json"] = Field(
        "/schemas/report-1.0.json",
        alias="$schema",
        description="the JSON Schema of this document, on the API it came from",
    )
    version: Literal["1.0"] = "1.0"
    job_id: str
    attempt: int
    created_at: datetime
    request: ErasureRequest
    verdict: Literal["passed", "failed"]
    thresholds: tuple[ThresholdResult, ...]
    target: TargetResult
    evaluations: tuple[EvaluationResult, ...]
    separation: tuple[Separation, ...] = Field(
        (),
        description=(
            "images that were in two roles: left out, or alike; of each pair of sets that "
            "was compared"
        ),
    )
    measures: tuple[Measure, ...] = Field(
        (), description="what else was measured, each with its definition"
    )
    curves: tuple[Curve, ...] = ()
    not_measured: tuple[NotMeasured, ...] = ()
    evidence: Literal["none", "association", "image_encoder", "both"] | None = Field(
        None, description="what the measurements, not the method's name, show to have been removed"
    )
    model_before: ModelIdentity
    model_after: ModelIdentity
    model_reference: ModelIdentity | None = Field(
        None,
        description="of `audit.reference`: said, not shown, never to have seen what is forgotten",
    )
    model_change: ModelChange
    method: dict[str, Any] = Field(
        description="what the method has to say: its mode, what it chose, how far it got"
    )
    stages: tuple[StageResult, ...]
    seed: int
    versions: dict[str, str]
    build: Build | None = None
    hardware: dict[str, str]
    warnings: tuple[RequestWarning, ...] = Field(
        (), description="what the request was told when it came"
    )
    limits: tuple[str, ...] = Field(description="what this report does not show, in words")
