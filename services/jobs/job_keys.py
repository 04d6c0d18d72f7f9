"""The key of a job: checkpoints, features and samples of it are encrypted with it, and its end
destroys it (`jobs.finish`).
"""

import base64

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.crypto.archive_encryption import Sealer
from shared.postgres.tables import Job
from shared.schemas.spec import JobSpec
from shared.settings import Settings


def with_key(session: Session, spec: JobSpec, settings: Settings) -> JobSpec:
    """Return a job that was just claimed with its sealed key, made at the first claim. The later
    attempts get the same.

    Without a master key there is none, and no uploaded data set either: everything lies as it is
    in files of the operator's."""
    if settings.master_key is None:
        return spec
    job = session.scalars(select(Job).where(Job.id == spec.job_id).with_for_update()).one()
    if job.data_key is None:
        job.data_key = Sealer.of(settings).new_key(job.id)
    return spec.model_copy(update={"data_key": base64.b64encode(job.data_key).decode()})


def rewrap(session: Session, settings: Settings) -> int:
    """Seal the key of every job under the first master key, so that older ones can go; return
    how many there are.
    """
    sealer = Sealer.of(settings)
    rows = session.scalars(select(Job).where(Job.data_key.is_not(None)).with_for_update()).all()
    for row in rows:
        row.data_key = sealer.rewrapped(row.data_key, row.id) if row.data_key else None
    return len(rows)
