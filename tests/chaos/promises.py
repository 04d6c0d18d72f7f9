"""What must hold when the storm is over, counted from the database, the storage, the disk and the process table."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from services.audit_log import chain as audit_chain
from services.audit_log import signed_heads
from services.certificates import issuing
from services.certificates.verification import verify
from services.purging import job_leftovers
from shared.crypto.certificate_keys import KeyFolder
from shared.errors import EffaceError
from shared.ports.object_storage import ObjectMissing, Storage
from shared.postgres.database import Database
from shared.postgres.tables import (
    Artifact,
    AuditUnlinked,
    Base,
    Dataset,
    DatasetPurge,
    Job,
    JobEvent,
    JobPurge,
    Model,
    Outbox,
    UnfinishedUpload,
    WebhookDelivery,
)
from shared.settings import Settings
from shared.states import JobState
from tests.chaos import fairness
from tests.chaos.customers import OUTLIVED_SECONDS, Asked, Customers
from tests.chaos.idleness import Stretches
from tests.chaos.listeners import Heard, Listeners, gaps


@dataclass(frozen=True, slots=True)
class Promise:
    """One thing that was promised, and what was found."""

    name: str
    found: int
    wanted: str
    kept: bool


@dataclass(frozen=True, slots=True)
class World:
    """Where to look."""

    database: Database
    storage: Storage
    settings: Settings
    tenant_ids: tuple[str, ...]
    temporary: Path
    """Where every process keeps its temporary files."""
    workers: int

    def idle(self) -> bool:
        """True where no job is queued or runs."""
        return self._none((Job, Job.finished_at.is_(None)))

    def settled(self) -> bool:
        """True where the service owes nothing more."""
        return self._none(
            (Job, Job.finished_at.is_(None) | Job.purged_at.is_(None)),
            (Job, Job.verdict.is_not(None) & Job.certified_at.is_(None)),
            (Dataset, Dataset.id.is_not(None)),
            (UnfinishedUpload, UnfinishedUpload.id.is_not(None)),
            (Outbox, Outbox.id.is_not(None)),
            (AuditUnlinked, AuditUnlinked.entry_id.is_not(None)),
            (WebhookDelivery, WebhookDelivery.state == "pending"),
            (Job, ~self._looked_at_twice()),
        ) and not self._listed("datasets")

    def _looked_at_twice(self) -> ColumnElement[bool]:
        sure = Job.finished_at + timedelta(seconds=2 * self.settings.lease_seconds)
        return select(JobPurge.job_id).where(JobPurge.job_id == Job.id, JobPurge.verified_at >= sure).exists()

    def objects(self) -> set[str]:
        """Return the keys of what is left of jobs in the storage."""
        return self._listed("jobs")

    def inputs(self) -> set[str]:
        """Return the keys of what is left of uploads in the storage."""
        return self._listed("datasets")

    def _listed(self, folder: str) -> set[str]:
        """JuiceFS lists the folders that were there, too."""
        prefixes = [f"tenants/{tenant_id}/{folder}" for tenant_id in self.tenant_ids]
        return {found.key for prefix in prefixes for found in self.storage.list(prefix) if found.size}

    def _none(self, *of: tuple[type[Base], ColumnElement[bool]]) -> bool:
        try:
            with self.database.transaction() as session:
                return not any(session.scalar(select(func.count()).select_from(t).where(c)) for t, c in of)
        except (OSError, EffaceError):
            return False


@dataclass(frozen=True, slots=True)
class Witnesses:
    """Who saw what happened meanwhile."""

    customers: Customers
    listeners: Listeners
    stretches: Stretches
    called: Collection[str] | None
    """The ids of the deliveries that the receiver got, None where there is none."""


def count(world: World, seen: Witnesses, *, processes_left: int) -> tuple[Promise, ...]:
    """Count everything."""
    with world.database.transaction() as session:
        return (
            *_of_jobs(session, seen.customers),
            *_of_turns(session, world, seen.stretches),
            *_of_streams(session, seen),
            *_of_results(session, world),
            *_of_inputs(session, world, seen.customers),
            *_of_evidence(session, world, seen.called),
            _none("processes left", processes_left),
        )


def _of_jobs(session: Session, customers: Customers) -> Sequence[Promise]:
    jobs = {job.id: job for job in session.scalars(select(Job))}
    accepted = {job for asked in customers.wanted for job in asked.accepted}
    finished = [job for job in accepted if job in jobs and JobState(jobs[job].state).final]
    finals = Counter(session.scalars(select(JobEvent.job_id).where(JobEvent.type.in_(fairness.FINAL))))
    attempts = sum(job.attempt for job in jobs.values())
    return (
        Promise("jobs accepted", len(accepted), "all", not customers.refused),
        Promise("jobs finished", len(finished), "as many", len(finished) == len(accepted)),
        Promise("attempts", attempts, "any", kept=True),
        _none("jobs that nobody was told of", len(set(jobs) - accepted)),
        _none("requests with two jobs", sum(len(asked.accepted) != 1 for asked in customers.wanted)),
        _none("jobs that ended otherwise than asked", sum(_otherwise(asked, jobs) for asked in customers.wanted)),
        _none("jobs with other than one end", sum(finals[job] != 1 for job in jobs)),
        _none("messages owed", session.scalar(select(func.count()).select_from(Outbox)) or 0),
    )


def _of_turns(session: Session, world: World, stretches: Stretches) -> Sequence[Promise]:
    found = fairness.turns(fairness.committed(session))
    return (
        Promise("times that a tenant had jobs waiting and none running", len(found.passed_over), "any", kept=True),
        Promise("jobs of another tenant that went before, at most", found.most, "any", kept=True),
        _none("fairness violations", found.violations(world.workers)),
        Promise("seconds waited beside an idle worker, at most", int(stretches.longest), "any", kept=True),
        _none("jobs that waited ten seconds beside an idle worker", len(stretches.forgotten)),
    )


def _of_streams(session: Session, seen: Witnesses) -> Sequence[Promise]:
    happened: dict[str, Heard] = {job_id: [] for job_id in session.scalars(select(Job.id))}
    events = select(JobEvent.job_id, JobEvent.seq, JobEvent.type).order_by(JobEvent.job_id, JobEvent.seq)
    for job_id, seq, kind in session.execute(events):
        happened[job_id].append((seq, kind))
    listeners, after = seen.listeners, seen.customers.left_after
    return (
        Promise(
            "streams followed to the end", len(listeners.heard), "one a job", len(listeners.heard) == len(happened)
        ),
        Promise("streams taken up again", listeners.resumed, "any", kept=True),
        _none("stream gaps", sum(gaps(listeners.heard.get(job_id), events) for job_id, events in happened.items())),
        Promise("streams whose key was revoked", len(after), "any", kept=True),
        Promise("seconds that one went on, at most", int(max(after, default=0.0)), "any", kept=True),
        _none("streams that outlived their key", sum(seconds > OUTLIVED_SECONDS for seconds in after)),
    )


def _otherwise(asked: Asked, jobs: dict[str, Job]) -> bool:
    return not {JobState(jobs[job].state) for job in asked.accepted} <= asked.ends


def _of_results(session: Session, world: World) -> Sequence[Promise]:
    results = select(Job.id, Job.result_model_id).where(Job.state == JobState.SUCCEEDED)
    succeeded = dict(session.execute(results).all())
    published = list(session.execute(select(Model.job_id, Model.id).where(Model.job_id.is_not(None))))
    per_job = Counter(job for job, _ in published)
    artifacts = list(session.scalars(select(Artifact)))
    rows, stored = {artifact.key for artifact in artifacts}, world.objects()
    current = dict(session.execute(select(Job.id, Job.attempt)).all())
    return (
        Promise("jobs succeeded", len(succeeded), "any", kept=True),
        Promise("publications", len(published), "as many", len(published) == len(succeeded)),
        _none("successes with other than one publication", sum(per_job[job] != 1 for job in succeeded)),
        _none("publications of no success", sum(succeeded.get(job or "") != model for job, model in published)),
        _none("artifacts of a lost attempt", sum(a.attempt != current[a.job_id] for a in artifacts)),
        _none("objects without an artifact", len(stored - rows)),
        _none("artifacts without an object", len(rows - stored)),
    )


def _of_inputs(session: Session, world: World, customers: Customers) -> Sequence[Promise]:
    incomplete = 0
    for job_id, tenant_id in session.execute(select(Job.id, Job.tenant_id)):
        incomplete += not job_leftovers.receipt(session, tenant_id, job_id).complete
    receipts = set(session.scalars(select(DatasetPurge.dataset_id)))
    files = [file for file in world.temporary.rglob("*") if file.is_file()]
    return (
        _none("uploads left in the storage", len(world.inputs())),
        _none("uploads left in the database", session.scalar(select(func.count()).select_from(Dataset)) or 0),
        _none("uploads never finished", session.scalar(select(func.count()).select_from(UnfinishedUpload)) or 0),
        _none("temporary files left", len(files)),
        _none("purges without a complete receipt", incomplete),
        Promise("data sets deleted by their owner", len(customers.deleted), "any", kept=True),
        _none("such deletions without a receipt", len(customers.deleted - receipts)),
    )


def _of_evidence(session: Session, world: World, called: Collection[str] | None) -> Sequence[Promise]:
    judged = list(session.execute(select(Job.tenant_id, Job.id).where(Job.verdict.is_not(None))))
    public = KeyFolder(world.settings.signing_dir).public_keys()
    certified = [verify(_certified(session, world, *judgement), public) for judgement in judged]
    statements = [found.statement for found in certified if found.holds]
    chain = audit_chain.verify(session)
    key = (
        signed_heads.private_key(world.settings.audit_key_file).public_key() if world.settings.audit_key_file else None
    )
    wrong = [*chain.findings, *(signed_heads.check(session, [key]) if key else [])]
    owed = session.execute(select(WebhookDelivery.id, WebhookDelivery.state)).all()
    ended = session.scalar(select(func.count()).select_from(Job).where(Job.finished_at.is_not(None))) or 0
    found = [
        Promise("verdicts", len(judged), "any", kept=True),
        _none("verdicts without a valid certificate", len(judged) - len(statements)),
        _none(
            "certificates that do not confirm the purge", sum(s is None or not s.predicate.purge for s in statements)
        ),
        Promise("entries in the audit log", chain.last.seq, "any", kept=chain.last.seq > 0),
        _none("entries not yet in the chain", chain.waiting),
        _none("findings of efface audit verify", len(wrong)),
    ]
    if called is not None:
        missing = {delivery for delivery, _ in owed} - set(called)
        found += [
            Promise("deliveries to the webhook", len(owed), "one an end", len(owed) == ended),
            _none("deliveries not settled", sum(state != "delivered" for _, state in owed)),
            _none("deliveries that never arrived", len(missing)),
        ]
    return found


def _certified(session: Session, world: World, tenant_id: str, job_id: str) -> bytes:
    """Return the last certificate of a job; nothing where there is none."""
    try:
        return world.storage.get(issuing.find(session, tenant_id, job_id).key)
    except (EffaceError, ObjectMissing):
        return b""


def _none(name: str, found: int) -> Promise:
    return Promise(name, found, "0", found == 0)
