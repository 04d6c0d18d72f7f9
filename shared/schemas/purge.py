"""The purge receipt: what was deleted after a job, and how that was checked."""

from datetime import datetime
from typing import Literal

from pydantic import Field

from shared.ports.object_versions import Versions
from shared.schemas.base import Schema

PurgeReason = Literal["job_ended", "unused", "retention_ended", "abandoned", "restored", "deleted"]
"""The last job that used it has ended; no job used it in time; its time is over; no row knew of
it; it came back; its owner has deleted it."""
RemovalReason = Literal["model_deleted", "retention_ended"]


class PurgedObject(Schema):
    """One object that was deleted."""

    key: str
    bytes: int
    sha256: str | None = Field(
        None, description="of the sealed object; null where it was not sealed"
    )


class DatasetPurge(Schema):
    """What became of a data set that the job used."""

    object: Literal["dataset_purge"] = "dataset_purge"
    dataset: str
    state: Literal["purged", "waiting", "kept"] = Field(
        description=(
            "waiting: another job still uses it, or it is being deleted; kept: it lives "
            "for its retention period"
        )
    )
    reason: PurgeReason | None = None
    objects: tuple[PurgedObject, ...] = ()
    versions: Versions | None = Field(
        None, description="what became of older versions in the storage"
    )
    key_destroyed_at: datetime | None = Field(
        None, description="from then on no copy of it can be read"
    )
    listing_empty_at: datetime | None = Field(
        None, description="when the storage was seen to list nothing of it"
    )


class ModelPurge(Schema):
    """What was deleted of a model. Its id goes on naming it in jobs, certificates and as the
    parent of others.
    """

    object: Literal["model_purge"] = "model_purge"
    model: str
    deleted_at: datetime
    objects: tuple[PurgedObject, ...] = Field(description="empty where it was only a reference")
    versions: Versions | None = Field(description="what became of older versions in the storage")
    listing_empty_at: datetime | None = Field(
        description="when the storage was seen to list nothing of it"
    )
    children: tuple[str, ...] = Field(description="models that were made from it, and stay")


class Removal(Schema):
    """Files of a job that were removed after its end."""

    what: Literal["weights", "quarantined_weights", "report"]
    reason: RemovalReason
    removed_at: datetime


class PurgeReceipt(Schema):
    """What was deleted after a job. Holds ids, sizes and digests of sealed bytes; nothing of
    what was in them.
    """

    object: Literal["purge_receipt"] = "purge_receipt"
    job: str
    complete: bool = Field(description="true once nothing more is to be deleted")
    leftovers: tuple[PurgedObject, ...] = Field(
        description=(
            "of the job itself: checkpoints, per-image predictions, objects of attempts "
            "that did not win"
        )
    )
    versions: Versions | None = Field(description="what became of older versions of the leftovers")
    listing_empty_at: datetime | None = Field(
        description="when the storage was seen to list nothing of the job but what it published"
    )
    key_destroyed_at: datetime | None = Field(
        None, description="from then on no copy of the leftovers that were encrypted can be read"
    )
    datasets: tuple[DatasetPurge, ...]
