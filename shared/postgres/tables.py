"""The tables. Postgres is the truth of every job; every row belongs to a tenant."""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    DateTime,
    Float,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Interval,
    LargeBinary,
    MetaData,
    String,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from shared.states import JobState

DOCUMENT_VERSION = 1
"""Of the JSON documents that are written into rows now; older ones are read leniently
(`shared.schemas.stored`).
"""

CONVENTION = {
    "ix": "ix_%(column_0_N_label)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    """Names every constraint, so that migrations can name them too."""

    metadata = MetaData(naming_convention=CONVENTION)
    type_annotation_map = {  # noqa: RUF012 - read by SQLAlchemy at class creation
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB,
        list[str]: ARRAY(String),
        timedelta: Interval,
        bytes: LargeBinary,
        str: Text,
    }


class Tenant(Base):
    """Who owns rows and objects."""

    __tablename__ = "tenants"
    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    served_at: Mapped[datetime | None]
    """When a worker last took a job of it: of two tenants with as many running, the one served
    longer ago is next.
    """


class ApiKey(Base):
    """A bearer key: only its SHA-256 is kept (the secret has 256 random bits, so a slow hash
    would add nothing).
    """

    __tablename__ = "api_keys"
    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), index=True)
    name: Mapped[str]
    hash: Mapped[str] = mapped_column(unique=True)
    scopes: Mapped[list[str]]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    previous_hash: Mapped[str | None] = mapped_column(unique=True)
    """Of the secret before the last rotation, which works until `previous_expires_at`."""
    previous_expires_at: Mapped[datetime | None]
    made_by: Mapped[str | None] = mapped_column(ForeignKey("api_keys.id"), index=True)
    """The key that asked for it; null where the operator made it."""
    rotated_by: Mapped[str | None] = mapped_column(ForeignKey("api_keys.id"), index=True)
    """The key that was given its secret at the last rotation; null where the operator was."""


class AccessToken(Base):
    """A short-lived bearer token that a key got by OAuth2 client credentials; it ends with its
    key at the latest.
    """

    __tablename__ = "access_tokens"
    hash: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    key_id: Mapped[str] = mapped_column(ForeignKey("api_keys.id"))
    scopes: Mapped[list[str]]
    expires_at: Mapped[datetime] = mapped_column(index=True)


class ConsoleSession(Base):
    """A person who is signed in to the console with a key; it ends with the key at the latest."""

    __tablename__ = "console_sessions"
    hash: Mapped[str] = mapped_column(primary_key=True)
    """Of the cookie, which has 256 random bits."""
    id: Mapped[str] = mapped_column(unique=True)
    """What the audit log calls it."""
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    key_id: Mapped[str] = mapped_column(ForeignKey("api_keys.id"))
    person: Mapped[str]
    """Who signed in, by their own word."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime] = mapped_column(index=True)


class ConsoleLink(Base):
    """A link that signs one person in, once, with a key that they need not know. Deleted when it
    is used.
    """

    __tablename__ = "console_links"
    hash: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    key_id: Mapped[str] = mapped_column(ForeignKey("api_keys.id"))
    expires_at: Mapped[datetime] = mapped_column(index=True)


class IdempotencyKey(Base):
    """What a request under an `Idempotency-Key` was answered, written in the transaction that
    did what it asked.
    """

    __tablename__ = "idempotency_keys"
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    fingerprint: Mapped[str]
    """SHA-256 of tenant, method, path and payload."""
    status: Mapped[int]
    headers: Mapped[dict[str, Any]]
    body: Mapped[str]
    """As it was sent: JSON columns would not keep the order of fields."""
    expires_at: Mapped[datetime] = mapped_column(index=True)


class Model(Base):
    """A CLIP model: an uploaded or published checkpoint in object storage, or a reference to one
    elsewhere.
    """

    __tablename__ = "models"
    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    name: Mapped[str]
    architecture: Mapped[str | None]
    reference: Mapped[str]
    """As in `ModelSource.reference`: `storage:<prefix>`, `local-dir:`, `hf-hub:`, `open_clip:`."""
    digest: Mapped[str | None]
    size_bytes: Mapped[int | None] = mapped_column(BigInteger)
    parent_id: Mapped[str | None] = mapped_column(ForeignKey("models.id"))
    job_id: Mapped[str | None]
    """The job that made it."""
    warnings: Mapped[list[dict[str, str]]] = mapped_column(
        JSONB, default=list, server_default=text("'[]'::jsonb")
    )
    """Each one a `RequestWarning`: what the upload was told."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    deleted_at: Mapped[datetime | None]
    """Since when it cannot be used or listed. The row stays: jobs, certificates and lines of
    parents name it.
    """

    __table_args__ = (Index("ix_models_tenant_created", "tenant_id", "created_at"),)


class Dataset(Base):
    """An uploaded archive of images, validated, with the classes that were found in it."""

    __tablename__ = "datasets"
    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    name: Mapped[str]
    format: Mapped[str]
    """`zip`, `tar` or `webdataset`."""
    key: Mapped[str]
    digest: Mapped[str]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    images: Mapped[int]
    classes: Mapped[dict[str, Any]]
    """Class name -> number of images."""
    understood: Mapped[dict[str, Any] | None]
    """`layout`, `left_out`, `skipped` and `warnings` of `shared.files.image_sets.Contents`; null
    in older rows.
    """
    data_key: Mapped[bytes | None] = mapped_column(LargeBinary)
    """The key that the archive is sealed with, itself sealed with the master key
    (`shared.crypto.archive_encryption`).
    """
    sealed_sha256: Mapped[str | None]
    """Of the object as it lies in the storage."""
    purge_after_job: Mapped[bool | None]
    """True: with the last job that uses it; false: kept for its retention period; null: purged
    if a job forgets it.
    """
    purging_at: Mapped[datetime | None]
    """When its key was destroyed. The row follows as soon as the object is gone."""
    purge_reason: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (Index("ix_datasets_tenant_created", "tenant_id", "created_at"),)


class UnfinishedUpload(Base):
    """An upload whose objects are on their way to the storage: written before the first of them,
    deleted with the commit of the row that knows them. What a gateway leaves that dies in
    between is found by it."""

    __tablename__ = "unfinished_uploads"
    id: Mapped[str] = mapped_column(primary_key=True)
    """Of the data set or model that it is to become."""
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), index=True)
    kind: Mapped[str]
    """`dataset` or `model`."""
    key: Mapped[str]
    """Where its objects are: one key, or what is below it."""
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    """What it takes of the tenant's quota."""
    given_up_at: Mapped[datetime | None]
    """Since when its objects are being deleted: it can no longer become anything."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Job(Base):
    """One erasure job. `attempt` is the fence: whoever writes must hold the current one."""

    __tablename__ = "jobs"
    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    state: Mapped[str] = mapped_column(default=JobState.QUEUED)
    stage: Mapped[str | None]
    progress: Mapped[float] = mapped_column(Float, default=0.0)
    """Share of the running stage that is done, in [0, 1]."""
    version: Mapped[int] = mapped_column(Integer, default=1)
    """Grows with every change that a client can see: the ETag."""
    request: Mapped[dict[str, Any]]
    spec: Mapped[dict[str, Any]]
    """The request resolved (`JobSpec`), without the attempt."""
    warnings: Mapped[list[dict[str, str]]] = mapped_column(
        JSONB, default=list, server_default=text("'[]'::jsonb")
    )
    """What the request was told when it came (`RequestWarning`).

    Not in `spec`: workers of the version before, which go on for a while, refuse a specification
    with fields unknown to them."""
    document_version: Mapped[int] = mapped_column(
        default=DOCUMENT_VERSION, server_default=text("1")
    )
    """The form in which `request` and `spec` are stored (`shared.schemas.stored`)."""
    method: Mapped[str]
    model_id: Mapped[str | None] = mapped_column(ForeignKey("models.id"))
    external_id: Mapped[str | None]
    business_key: Mapped[str | None]
    """SHA-256 of what is asked for (`services.jobs.queries.business_key`); null without an
    `external_id`.
    """
    received_at: Mapped[datetime]
    due_at: Mapped[datetime] = mapped_column(server_default=text("now() + '1 mon'::interval"))
    """The last second of the period of Art. 12(3) GDPR (`services.jobs.queries.deadlines`). See
    `TURN` for the order of the queue.

    The default serves gateways of the version before, which go on for a while after the migration.
    """
    held_at: Mapped[datetime | None]
    """Since when the clock is stopped, because the data subject's identity is in doubt: no
    worker takes the job.
    """
    hold_reason: Mapped[str | None]
    held_for: Mapped[timedelta] = mapped_column(default=timedelta(), server_default=text("'0'"))
    """How long earlier holds lasted."""
    extension: Mapped[dict[str, Any] | None]
    """`{reason, extended_at}` once the period was extended."""
    refusal: Mapped[dict[str, Any] | None]
    """`{ground, detail, refused_at}` of a job that the controller refused."""
    at_risk_at: Mapped[datetime | None]
    """When it was first expected to end after `due_at`."""
    attempt: Mapped[int] = mapped_column(default=0)
    max_attempts: Mapped[int]
    lease_owner: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None]
    doorbell_at: Mapped[datetime | None]
    """When it was last put into the queue, or rung for since."""
    cancel_requested_at: Mapped[datetime | None]
    error: Mapped[dict[str, Any] | None]
    """`{code, message, detail}` of a failed job."""
    verdict: Mapped[str | None]
    result_model_id: Mapped[str | None] = mapped_column(ForeignKey("models.id"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    purged_at: Mapped[datetime | None]
    """When the leftovers of a finished job (checkpoints, other attempts) were deleted."""
    certified_at: Mapped[datetime | None]
    """When the last certificate that is owed was issued. A job with a verdict and without this
    is owed one.
    """
    removals: Mapped[list[dict[str, Any]]] = mapped_column(
        JSONB, default=list, server_default=text("'[]'::jsonb")
    )
    """`{what, reason, removed_at}` of each kind of file that was removed after the end."""
    data_key: Mapped[bytes | None] = mapped_column(LargeBinary)
    """The key that checkpoints and caches of the job are encrypted with, itself encrypted with
    the master key. The end of the job destroys it."""
    key_destroyed_at: Mapped[datetime | None]

    __table_args__ = (
        Index("ix_jobs_tenant_created", "tenant_id", "created_at", "id"),
        Index("ix_jobs_tenant_due", "tenant_id", "due_at", "id"),
        Index(
            "uq_jobs_business_key",
            "tenant_id",
            "business_key",
            unique=True,
            postgresql_where=text(
                "state NOT IN ('failed', 'cancelled') AND cancel_requested_at IS NULL"
            ),
        ),
        Index(
            "ix_jobs_tenant_unfinished",
            "tenant_id",
            postgresql_where=text("state IN ('queued', 'running')"),
        ),
        Index(
            "ix_jobs_unfinished",
            "state",
            "lease_expires_at",
            postgresql_where=text("state IN ('queued', 'running')"),
        ),
        Index(
            "ix_jobs_unfinished_due",
            "due_at",
            postgresql_where=text("state IN ('queued', 'running')"),
        ),
        Index(
            "ix_jobs_waiting",
            "tenant_id",
            text("GREATEST(due_at, created_at)"),
            "id",
            postgresql_where=text("state = 'queued' AND held_at IS NULL"),
        ),
        Index(
            "ix_jobs_running",
            "tenant_id",
            "lease_expires_at",
            postgresql_where=text("state = 'running'"),
        ),
        Index(
            "ix_jobs_durations",
            "method",
            "finished_at",
            postgresql_where=text("verdict IS NOT NULL"),
        ),
        Index(
            "ix_jobs_unpurged",
            "finished_at",
            postgresql_where=text("finished_at IS NOT NULL AND purged_at IS NULL"),
        ),
        Index(
            "ix_jobs_uncertified",
            "finished_at",
            postgresql_where=text("verdict IS NOT NULL AND certified_at IS NULL"),
        ),
    )


TURN = func.greatest(Job.due_at, Job.created_at)
"""Where a job stands among those of its tenant. One that was overdue when it came counts as due
at that moment: the date that a request came with (`received_at`) is the client's word, and a
year long gone would be first for ever."""


class JobEvent(Base):
    """What happened to a job, in order. `seq` counts from 1 within the job and is the id of the
    server-sent event.
    """

    __tablename__ = "job_events"
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[str]
    type: Mapped[str]
    data: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class JobMetric(Base):
    """One value of a series: what a method measured at a step."""

    __tablename__ = "job_metrics"
    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    tenant_id: Mapped[str]
    attempt: Mapped[int]
    stage: Mapped[str]
    step: Mapped[int]
    name: Mapped[str]
    value: Mapped[float | None] = mapped_column(Float)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (Index("ix_job_metrics_job", "job_id", "id"),)


class Artifact(Base):
    """A file that a finished job left. Only a final commit and `services.certificates.issuing`
    write here.
    """

    __tablename__ = "artifacts"
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str]
    attempt: Mapped[int]
    key: Mapped[str]
    sha256: Mapped[str]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    quarantined: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    removed_at: Mapped[datetime | None]
    """Since when it is not handed out any more; the object follows. Its digest stays: a
    certificate names it.
    """
    removal_reason: Mapped[str | None]
    """`model_deleted` or `retention_ended`."""


class Outbox(Base):
    """A message that a committed transaction owes the world; the relay sends it, then deletes
    the row.
    """

    __tablename__ = "outbox"
    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    kind: Mapped[str]
    """`doorbell`: ring the queue for a job."""
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class ServiceProcess(Base):
    """A process of the service that says every few seconds that it lives: a worker or a relay."""

    __tablename__ = "processes"
    id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    """`ProcessKind`."""
    host: Mapped[str]
    pid: Mapped[int]
    version: Mapped[str]
    job_id: Mapped[str | None]
    """What a worker works on."""
    facts: Mapped[dict[str, Any]]
    """Of a worker: `device`, `isolation`, `doorbell`, `renewals`. Of a relay: `signing_key`,
    `parts`.
    """
    started_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    seen_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class Webhook(Base):
    """An address that a tenant wants to be called at when something happens to its jobs."""

    __tablename__ = "webhooks"
    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    kind: Mapped[str] = mapped_column(server_default="standard")
    """What its calls look like (`CallKind`)."""
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"))
    """The one job that it is told of; null: every job of the tenant."""
    url: Mapped[str]
    description: Mapped[str | None]
    events: Mapped[list[str]]
    """Types of the events that are delivered."""
    paused_until: Mapped[datetime | None]
    """It asked for fewer calls: nothing is sent to it before this."""
    disabled_at: Mapped[datetime | None]
    disabled_reason: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        Index("ix_webhooks_tenant_created", "tenant_id", "created_at"),
        Index("ix_webhooks_tenant_job", "tenant_id", "job_id"),
    )


class WebhookSecret(Base):
    """What calls are signed with. One generation is current; the one before it signs along until
    it expires.
    """

    __tablename__ = "webhook_secrets"
    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    webhook_id: Mapped[str] = mapped_column(
        ForeignKey("webhooks.id", ondelete="CASCADE"), index=True
    )
    tenant_id: Mapped[str]
    sealed_secret: Mapped[bytes]
    """HMAC-SHA256 key, sealed under the master key."""
    sealed_private_key: Mapped[bytes]
    """Ed25519 private key, sealed under the master key."""
    public_key: Mapped[str]
    expires_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class WebhookDelivery(Base):
    """A call that a committed event owes an endpoint, written in the event's transaction, and
    how its tries went.
    """

    __tablename__ = "webhook_deliveries"
    id: Mapped[str] = mapped_column(primary_key=True)
    """The `webhook-id`: the same at every try."""
    webhook_id: Mapped[str] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    tenant_id: Mapped[str]
    job_id: Mapped[str]
    type: Mapped[str]
    body: Mapped[str]
    """As it is sent: a signature covers every byte."""
    state: Mapped[str]
    attempts: Mapped[int] = mapped_column(default=0)
    """Tries on the present round of the schedule: the fence of whoever sends."""
    next_attempt_at: Mapped[datetime | None]
    """When the next try is due; while one is under way, when it is taken for lost. Null once
    there is none.
    """
    log: Mapped[list[dict[str, Any]]] = mapped_column(JSONB, default=list)
    """`{at, status, error, milliseconds}` of each try, oldest first."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        Index("ix_webhook_deliveries_webhook_created", "webhook_id", "created_at"),
        Index(
            "ix_webhook_deliveries_due",
            "next_attempt_at",
            postgresql_where=text("state = 'pending'"),
        ),
    )


class OpenDsrRequest(Base):
    """A data subject request that came by OpenDSR, and the job that fulfils it. Nothing of the
    identities is kept.
    """

    __tablename__ = "opendsr_requests"
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    subject_request_id: Mapped[str] = mapped_column(primary_key=True)
    """The controller's UUID."""
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), index=True)
    regulation: Mapped[str]
    domain: Mapped[str]
    """Whom the controller knows us as, in the extensions of what we say of this request."""
    base_url: Mapped[str]
    """Where it reached us: links in what it is told begin with this."""
    fingerprint: Mapped[str]
    """SHA-256 of the request without its identities: the same id must mean the same request."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class JobDataset(Base):
    """A job uses an uploaded data set. The data set may be gone already: this row is what
    remains of it here.
    """

    __tablename__ = "job_datasets"
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    dataset_id: Mapped[str] = mapped_column(primary_key=True, index=True)
    purged: Mapped[bool]
    """True where the data set goes with the last job that uses it."""


class JobPurge(Base):
    """What was deleted of a finished job itself: checkpoints, caches, the objects of attempts
    that did not win.
    """

    __tablename__ = "job_purges"
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    tenant_id: Mapped[str]
    objects: Mapped[list[dict[str, Any]]] = mapped_column(JSONB)
    """`{key, bytes}` of each."""
    versions: Mapped[str]
    """What became of older versions: `none`, `deleted` or `unknown`
    (`shared.ports.object_versions`).
    """
    verified_at: Mapped[datetime]
    """When the listing showed nothing but what the job published."""


class DatasetPurge(Base):
    """A data set that was purged. Holds nothing of its content, and no name."""

    __tablename__ = "dataset_purges"
    dataset_id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(index=True)
    reason: Mapped[str]
    """`PurgeReason`."""
    objects: Mapped[list[dict[str, Any]]] = mapped_column(JSONB)
    """`{key, bytes, sha256}` of each as it lay in the storage; the digest is null where it was
    not sealed.
    """
    versions: Mapped[str]
    key_destroyed_at: Mapped[datetime | None]
    """Null where the archive was stored before archives were sealed."""
    verified_at: Mapped[datetime]
    """When the listing was empty."""


class ModelPurge(Base):
    """A model that was deleted, and what was deleted of it."""

    __tablename__ = "model_purges"
    model_id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(index=True)
    prefix: Mapped[str | None]
    """Where its files were; null where it was only a reference."""
    objects: Mapped[list[dict[str, Any]]] = mapped_column(JSONB)
    """`{key, bytes}` of each."""
    versions: Mapped[str]
    verified_at: Mapped[datetime]
    """When the listing was empty."""


class WeightFetch(Base):
    """Who has fetched the weights of a published model: a key, not a person."""

    __tablename__ = "weight_fetches"
    model_id: Mapped[str] = mapped_column(ForeignKey("models.id"), primary_key=True)
    key_id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str]
    job_id: Mapped[str]
    """The job that published the model."""
    first_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_at: Mapped[datetime] = mapped_column(server_default=func.now())
    count: Mapped[int] = mapped_column(default=1)


class AuditEntry(Base):
    """Something that happened. The database refuses to change or delete it."""

    __tablename__ = "audit_log"
    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    tenant_id: Mapped[str | None]
    actor: Mapped[str]
    """The id of a key, or `service` or `operator`."""
    action: Mapped[str]
    """`job.submitted`, `weights.fetched`, ..."""
    subject: Mapped[str]
    """The id of what it happened to."""
    detail: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())

    __table_args__ = (Index("ix_audit_log_tenant", "tenant_id", "id"),)


class AuditUnlinked(Base):
    """An entry that waits for its place in the chain."""

    __tablename__ = "audit_unlinked"
    entry_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)


class AuditLink(Base):
    """The place of an entry in the chain. The database refuses to change or delete it."""

    __tablename__ = "audit_chain"
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    entry_id: Mapped[int] = mapped_column(ForeignKey("audit_log.id"), unique=True)
    hash: Mapped[str]
    """SHA-256 over the entry and the hash before it (`services.audit_log.entries.chain`)."""


class AuditHead(Base):
    """A signed statement of how long the chain was. The database refuses to change or delete it."""

    __tablename__ = "audit_heads"
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    statement: Mapped[dict[str, Any]]
    signature: Mapped[str]


class SigningKey(Base):
    """A public key under which certificates were signed. Its private half is in a file that the
    relay alone can read.
    """

    __tablename__ = "signing_keys"
    id: Mapped[str] = mapped_column(primary_key=True)
    """As `shared.crypto.public_keys.key_id` computes it."""
    public_key: Mapped[str]
    """PEM."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    revoked_at: Mapped[datetime | None]
