"""A job as clients see it."""

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from shared.schemas.base import Schema
from shared.schemas.deadline import Extension, Hold, Refusal
from shared.schemas.purge import Removal
from shared.schemas.request import ErasureRequest, Thresholds
from shared.schemas.resolution import MeasuredSet, RequestWarning
from shared.states import JobState, Stage


class JobError(Schema):
    """Why a job failed."""

    code: str = Field(examples=["thresholds_not_met"])
    message: str
    detail: dict[str, Any] = Field(default_factory=dict)


class JobDraft(Schema):
    """What a request that was only checked would be: no job has come of it, so that there is no
    id.
    """

    object: Literal["job"] = "job"
    state: JobState = JobState.QUEUED
    request: ErasureRequest
    thresholds: Thresholds = Field(description="those of the request, with the defaults filled in")
    labels: tuple[str, ...] = Field((), description="those of the request, or what its images show")
    sets: tuple[MeasuredSet, ...] = Field(
        (), description="what each of `data.evaluation` is to the request"
    )
    hold: Hold | None = Field(None, description="none: nothing is put on hold by being checked")
    warnings: tuple[RequestWarning, ...] = Field(
        (), description="what is no error, and may not be what was meant"
    )
    external_id: str | None
    received_at: datetime
    due_at: datetime | None = Field(
        None, description="the last second of the period that the law gives"
    )


class JobView(Schema):
    """One job."""

    object: Literal["job"] = "job"
    id: str
    state: JobState
    stage: Stage | None = Field(description="what it is doing while it runs")
    progress: float = Field(
        description="share of the stage that is done, in [0, 1]; 1 where the job has succeeded"
    )
    attempt: int = Field(description="how often it was started")
    request: ErasureRequest | None = Field(
        description=(
            "as it was sent; null where an earlier version stored it in a form that "
            "cannot be read any more"
        )
    )
    thresholds: Thresholds | None = Field(
        description="those of the request, with the defaults filled in"
    )
    warnings: tuple[RequestWarning, ...] = Field(
        (), description="what is no error, and may not be what was meant"
    )
    verdict: Literal["passed", "failed"] | None
    error: JobError | None
    result_model: str | None = Field(description="the published model")
    external_id: str | None
    cancel_requested: bool
    received_at: datetime
    due_at: datetime | None = Field(
        None, description="the last second of the period that the law gives"
    )
    hold: Hold | None = Field(None, description="the clock is stopped, and no worker takes the job")
    extension: Extension | None = None
    refusal: Refusal | None = None
    at_risk_at: datetime | None = Field(
        None, description="when it was first expected to end after it is due"
    )
    removals: tuple[Removal, ...] = Field(
        (), description="files that were removed after the end; asking for them is 410"
    )
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    version: int = Field(0, exclude=True, description="row version; clients get it as the ETag")
    existing: bool = Field(
        False,
        exclude=True,
        description="it was there before it was asked for; clients get it as Efface-Existing-Job",
    )


class EventView(Schema):
    """One thing that happened to a job."""

    object: Literal["event"] = "event"
    seq: int = Field(description="counts from 1 within the job")
    type: str = Field(examples=["job.stage"])
    data: dict[str, Any]
    created_at: datetime


class MetricPoint(Schema):
    """One value of a series."""

    attempt: int
    stage: Stage
    step: int
    value: float | None = Field(description="null where it was not a finite number")


class MetricSeries(Schema):
    """What was measured under one name, in order."""

    name: str
    points: tuple[MetricPoint, ...]


class ArtifactView(Schema):
    """A file that a finished job left."""

    name: str
    key: str
    sha256: str
    size_bytes: int
    quarantined: bool
    removed_at: datetime | None = None
    removal_reason: str | None = None
