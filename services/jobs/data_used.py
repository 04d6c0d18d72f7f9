"""Which uploaded datasets a job uses, and which jobs use a dataset."""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from shared.postgres.tables import Job, JobDataset
from shared.schemas.spec import DataSources
from shared.states import JobState

NAMED = 5
"""So many of the jobs that stand in the way of a deletion are named."""


def link(session: Session, job_id: str, data: DataSources) -> None:
    """Write down which uploaded data sets a new job uses, and which of them go with it."""
    uses: dict[str, bool] = {}
    for source in data.all():
        if source.id is not None:
            uses[source.id] = uses.get(source.id, False) or source.purged
    session.add_all(
        JobDataset(job_id=job_id, dataset_id=i, purged=purged) for i, purged in uses.items()
    )


def users_of(session: Session, dataset_id: str) -> Sequence[str]:
    """Return the jobs that use, or have used, an uploaded data set."""
    return session.scalars(
        select(JobDataset.job_id).where(JobDataset.dataset_id == dataset_id)
    ).all()


def unfinished(session: Session, tenant_id: str, uses: ColumnElement[bool]) -> str:
    """Return the unfinished jobs of a tenant that use something, in words; nothing where there
    are none.
    """
    waiting = Job.state.in_((JobState.QUEUED, JobState.RUNNING))
    query = select(Job.id).where(Job.tenant_id == tenant_id, waiting, uses).order_by(Job.id)
    ids = session.scalars(query).all()
    more = f" and {len(ids) - NAMED} more" if len(ids) > NAMED else ""
    return (
        f"unfinished {'job' if len(ids) == 1 else 'jobs'} {', '.join(ids[:NAMED])}{more}"
        if ids
        else ""
    )
