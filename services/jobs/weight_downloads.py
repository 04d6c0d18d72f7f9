"""The register of who has fetched which weights, and what they are told when newer ones take their
place.

Article 19 of the GDPR: who has received what was erased must be told of the erasure. Weights
that were fetched cannot be called back; their owner is told that they are superseded, and can
read here which keys have them."""

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, aliased

from services.access.api_keys import Principal
from services.audit_log import entries
from services.catalog.models import get as get_model
from services.jobs.events import record
from shared.postgres.tables import Job, Model, WeightFetch
from shared.schemas.model import FetchView

SUPERSEDED = "job.superseded_model"


def weights_fetched(session: Session, caller: Principal, job_id: str, sha256: str) -> None:
    """Write down that a key was given the weights that a job has published, or a part of them."""
    own = (Job.id == job_id, Job.tenant_id == caller.tenant_id)
    model_id = session.scalars(select(Job.result_model_id).where(*own)).one()
    row = insert(WeightFetch).values(
        model_id=model_id, key_id=caller.key_id, tenant_id=caller.tenant_id, job_id=job_id, count=1
    )
    again = {"last_at": func.now(), "count": WeightFetch.count + 1}
    session.execute(
        row.on_conflict_do_update(
            index_elements=[WeightFetch.model_id, WeightFetch.key_id], set_=again
        )
    )
    detail = {"model": model_id, "sha256": sha256}
    entries.write(session, "weights.fetched", job_id, tenant_id=caller.tenant_id, detail=detail)


def report_fetched(session: Session, caller: Principal, job_id: str) -> None:
    """Write down that a key was given a report."""
    entries.write(session, "report.fetched", job_id, tenant_id=caller.tenant_id)


def fetches(session: Session, tenant_id: str, model_id: str) -> list[FetchView]:
    """Return which keys have fetched a model's weights, those first that did so last; also of a
    model that was deleted.

    Raises:
        NotFound: the tenant has no such model.
    """
    get_model(session, tenant_id, model_id, deleted=True)
    query = select(WeightFetch).where(
        WeightFetch.model_id == model_id, WeightFetch.tenant_id == tenant_id
    )
    rows = session.scalars(query.order_by(WeightFetch.last_at.desc()))
    return [
        FetchView(key=r.key_id, job=r.job_id, count=r.count, first_at=r.first_at, last_at=r.last_at)
        for r in rows
    ]


def notify_superseded(session: Session, job: Job) -> None:
    """Tell the jobs whose weights were fetched and are an ancestor of what `job` has just
    published.

    Their rows are locked from the youngest to the oldest: whoever tells two of them comes in the
    same order."""
    for model_id, job_id in _fetched_ancestors(session, job.model_id):
        older = session.scalar(select(Job).where(Job.id == job_id).with_for_update())
        if older is not None:
            data: dict[str, object] = {
                "model": model_id,
                "superseded_by": job.result_model_id,
                "by_job": job.id,
            }
            record(session, older, SUPERSEDED, data)


def _fetched_ancestors(session: Session, model_id: str | None) -> list[tuple[str, str]]:
    """Return (model, the job that published it) up the line of parents, from `model_id` on,
    where it was fetched.
    """
    columns = (Model.id, Model.parent_id, Model.job_id)
    line = select(*columns).where(Model.id == model_id).cte("line", recursive=True)
    parent = aliased(Model)
    line = line.union(
        select(parent.id, parent.parent_id, parent.job_id).join(line, parent.id == line.c.parent_id)
    )
    fetched = select(WeightFetch.model_id).where(WeightFetch.model_id == line.c.id).exists()
    query = (
        select(line.c.id, line.c.job_id)
        .where(line.c.job_id.is_not(None), fetched)
        .order_by(line.c.id.desc())
    )
    return [(model, job) for model, job in session.execute(query)]
