"""The record of processing (GDPR, Article 30(2)), from what the service knows and what its
operator has stated.
"""

from collections import Counter
from datetime import UTC, datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from shared.postgres.tables import Dataset, DatasetPurge, Job, Tenant
from shared.schemas.processing import (
    ControllerRecord,
    ProcessingRecord,
    ProcessorIdentity,
    RetentionPeriods,
)
from shared.settings import Settings

CATEGORIES = {
    "jobs": "erasing a class or a subgroup from a CLIP model, and measuring what was erased",
    "datasets": "storing uploaded images, sealed, for that purpose",
}
MEASURES = (
    (
        "uploaded archives are sealed with AES-256-GCM, each under a key of its own, which is "
        "destroyed when they are purged"
    ),
    (
        "images to be forgotten are purged when the last job that uses them has ended; a listing "
        "proves it"
    ),
    "images are readable on a worker only, in a folder that is deleted with the job's process",
    (
        "every row and object belongs to one tenant; API keys carry scopes and are kept as hashes "
        "alone"
    ),
    "an append-only, hash-chained audit log records submissions, ends, fetches, purges and keys",
)
STATED = {
    "processor_name": "EFFACE_PROCESSOR_NAME",
    "processor_contact": "EFFACE_PROCESSOR_CONTACT",
}
"""Without these a record is not complete."""


def record(session: Session, settings: Settings) -> ProcessingRecord:
    """Return the record as of now."""
    return ProcessingRecord(
        generated_at=datetime.now(UTC),
        processor=ProcessorIdentity(
            name=settings.processor_name,
            contact=settings.processor_contact,
            data_protection_officer=settings.processor_dpo,
        ),
        controllers=tuple(_controllers(session)),
        third_countries=settings.third_countries,
        security_measures=MEASURES,
        retention=RetentionPeriods(
            unused_upload_hours=settings.unused_upload_hours,
            other_data_sets_hours=24 * settings.dataset_retention_days,
        ),
        missing=tuple(
            variable for name, variable in STATED.items() if getattr(settings, name) is None
        ),
    )


def _controllers(session: Session) -> list[ControllerRecord]:
    held = _counts(session, Dataset)
    purged = _counts(session, DatasetPurge)
    jobs: dict[str, dict[str, int]] = {}
    for tenant_id, state, count in session.execute(
        select(Job.tenant_id, Job.state, func.count()).group_by(Job.tenant_id, Job.state)
    ):
        jobs.setdefault(tenant_id, {})[state] = count
    return [
        ControllerRecord(
            tenant=tenant.id,
            name=tenant.name,
            since=tenant.created_at,
            categories=tuple(
                words
                for what, words in CATEGORIES.items()
                if (tenant.id in jobs if what == "jobs" else held[tenant.id] + purged[tenant.id])
            ),
            jobs=jobs.get(tenant.id, {}),
            data_sets_held=held[tenant.id],
            data_sets_purged=purged[tenant.id],
        )
        for tenant in session.scalars(select(Tenant).order_by(Tenant.created_at))
    ]


def _counts(session: Session, table: type[Dataset] | type[DatasetPurge]) -> Counter[str]:
    rows = session.execute(select(table.tenant_id, func.count()).group_by(table.tenant_id))
    return Counter({row[0]: row[1] for row in rows})
