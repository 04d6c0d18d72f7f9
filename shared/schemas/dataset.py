"""An uploaded data set as clients see it."""

from datetime import datetime
from typing import Literal

from pydantic import Field

from shared.schemas.base import Schema


class DatasetView(Schema):
    """One data set."""

    object: Literal["dataset"] = "dataset"
    id: str
    name: str
    format: Literal["zip", "tar", "webdataset"]
    digest: str = Field(description="SHA-256 of the archive")
    size_bytes: int
    images: int
    classes: dict[str, int] = Field(description="images of each class")
    created_at: datetime
