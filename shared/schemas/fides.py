"""What the connector for Fides sends and reads."""

from typing import Annotated, Literal

from pydantic import Field

from shared.schemas.base import Schema
from shared.schemas.model_reference import ModelReference
from shared.schemas.request import Data, Method, Names, Thresholds
from shared.states import JobState


class FidesErasure(Schema):
    """The body of `POST /integrations/fides/jobs`: what is the same for every person."""

    model: ModelReference
    labels: Annotated[Names, Field(min_length=2)] = Field(
        description="every class the model is used with"
    )
    method: Method
    data: Data = Field(default_factory=lambda: Data())
    thresholds: Thresholds = Field(default_factory=lambda: Thresholds())


class FidesJob(Schema):
    """A job as Fides reads it."""

    object: Literal["fides_job"] = "fides_job"
    id: str
    status: JobState
