"""The record of processing that a processor must keep: GDPR, Article 30(2)."""

from datetime import datetime
from typing import Literal

from pydantic import Field

from shared.schemas.base import Schema


class ProcessorIdentity(Schema):
    """Article 30(2)(a): who processes. Null is what the operator has not stated."""

    name: str | None
    contact: str | None
    data_protection_officer: str | None


class ControllerRecord(Schema):
    """Article 30(2)(a) and (b): on whose behalf, and what is done for them."""

    tenant: str
    name: str
    since: datetime
    categories: tuple[str, ...] = Field(description="of processing that has taken place")
    jobs: dict[str, int] = Field(description="erasure jobs by how they stand")
    data_sets_held: int
    data_sets_purged: int


class RetentionPeriods(Schema):
    """Envisaged limits for erasure of what is uploaded, in hours."""

    forget_images: Literal["until the last job that uses them has ended"] = (
        "until the last job that uses them has ended"
    )
    unused_upload_hours: float
    other_data_sets_hours: float


class ProcessingRecord(Schema):
    """The whole record, as of one moment."""

    object: Literal["record_of_processing"] = "record_of_processing"
    basis: Literal["GDPR Article 30(2)"] = "GDPR Article 30(2)"
    generated_at: datetime
    processor: ProcessorIdentity
    controllers: tuple[ControllerRecord, ...]
    third_countries: str | None = Field(
        description="Article 30(2)(c): transfers with their safeguards; null: none"
    )
    security_measures: tuple[str, ...] = Field(description="Article 30(2)(d)")
    retention: RetentionPeriods
    missing: tuple[str, ...] = Field(description="what the operator must still state, by setting")
