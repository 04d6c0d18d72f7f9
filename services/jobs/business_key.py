"""When two requests ask for the same erasure: the business key of a job.

It is made of the model, what is to be forgotten, the method's name and the client's own
`external_id`, and unique within a tenant (`uq_jobs_business_key`). See docs/decisions/0011."""

import hashlib
import json

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.names import key_set, name_key
from shared.postgres.advisory_locks import lock
from shared.postgres.tables import Job
from shared.schemas.request import ErasureRequest, SubgroupTarget
from shared.schemas.spec import DataSources, ModelSource
from shared.states import JobState

OVER = (JobState.FAILED, JobState.CANCELLED)
"""States in which a job no longer stands for its erasure: it may be asked for anew."""


def business_key(request: ErasureRequest, model: ModelSource, data: DataSources) -> str | None:
    """Return the SHA-256 of what is asked for, None without an `external_id`.

    Names in another spelling are the same names. A model is its digest, so that two uploads of
    the same weights are one; where it is not known, its reference. A subgroup is also the images
    that show it. Labels, thresholds, parameters and seed say how to work and measure, not what
    to forget, and are left out."""
    if request.external_id is None:
        return None
    target = request.target
    what: list[object] = [target.type, sorted(key_set(target.all_names()))]
    if isinstance(target, SubgroupTarget):
        what += [name_key(target.subgroup), data.forget and (data.forget.digest or data.forget.uri)]
    parts = [model.digest or model.reference, what, request.method.name, request.external_id]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def standing(session: Session, tenant_id: str, key: str) -> Job | None:
    """Return the job that stands for this erasure, None where there is none.

    Until the transaction ends nobody else can make one: the caller may.
    """
    lock(session, "business_key", tenant_id, key)
    stands = (Job.state.not_in(OVER), Job.cancel_requested_at.is_(None))
    return session.scalar(
        select(Job).where(Job.tenant_id == tenant_id, Job.business_key == key, *stands)
    )
