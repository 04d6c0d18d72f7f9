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
    purge_after_job: bool | None = Field(
        None,
        description="true: purged with the last job that uses it; false: kept for the retention period; "
        "null: purged if a job gives it as data.forget or data.forget_test, else kept",
    )
    created_at: datetime
