"""A registered model as clients see it."""

from datetime import datetime
from typing import Literal

from pydantic import Field

from shared.schemas.base import Label, Schema
from shared.schemas.model_reference import ModelReference
from shared.schemas.resolution import RequestWarning


class ModelView(Schema):
    """One model."""

    object: Literal["model"] = "model"
    id: str
    name: str
    architecture: str | None
    reference: str = Field(description="where the weights are")
    digest: str | None = Field(description="SHA-256 of the weights, where they are ours")
    size_bytes: int | None
    parent: str | None = Field(description="the model it was made from")
    job: str | None = Field(description="the job that made it")
    warnings: tuple[RequestWarning, ...] = Field(
        (), description="what is no error, and may not be what was meant"
    )
    created_at: datetime


class ModelRegistration(Schema):
    """The JSON body of `POST /models`: a model that is somewhere else."""

    name: Label
    model: ModelReference


class FetchView(Schema):
    """That a key has fetched the weights of a published model."""

    object: Literal["fetch"] = "fetch"
    key: str = Field(description="id of the API key")
    job: str = Field(description="the job that published the model")
    count: int
    first_at: datetime
    last_at: datetime
