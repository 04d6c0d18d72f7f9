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
    format: Literal["zip", "tar", "webdataset", "parquet"]
    digest: str = Field(description="SHA-256 of the archive")
    size_bytes: int
    images: int
    classes: dict[str, int] = Field(description="images of each class")
    layout: str | None = Field(
        None,
        description="how it was read: class_folders, split_folders (train, val, ... put "
        "together), unlabelled, webdataset "
        "(labels beside images), label_table (CSV, JSON lines), parquet; null for one from before "
        "this was kept",
    )
    left_out: dict[str, int] = Field(
        default={}, description="members that are no images of the set, by kind: they were left out"
    )
    skipped: int = Field(
        0, description="members that cannot be used and were left out, as skip_invalid asked"
    )
    warnings: tuple[str, ...] = Field((), description="what is odd about it, in sentences")
    purge_after_job: bool | None = Field(
        None,
        description="true: purged with the last job that uses it; false: kept for the retention "
        "period; "
        "null: purged if a job gives it as data.forget or data.forget_test, else kept",
    )
    created_at: datetime
