"""The tables. Postgres is the truth of every job; every row belongs to a tenant."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    DateTime,
    Float,
    ForeignKey,
    Identity,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from shared.states import JobState

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
        str: Text,
    }


class Tenant(Base):
    """Who owns rows and objects."""

    __tablename__ = "tenants"
    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class ApiKey(Base):
    """A bearer key: only its SHA-256 is kept (the key has 256 random bits, so a slow hash would add nothing)."""

    __tablename__ = "api_keys"
    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), index=True)
    name: Mapped[str]
    hash: Mapped[str] = mapped_column(unique=True)
    scopes: Mapped[list[str]]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    revoked_at: Mapped[datetime | None]


class Model(Base):
    """A CLIP model: an uploaded or published checkpoint in object storage, or a reference to one elsewhere."""

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
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

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
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (Index("ix_datasets_tenant_created", "tenant_id", "created_at"),)


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
    method: Mapped[str]
    model_id: Mapped[str | None] = mapped_column(ForeignKey("models.id"))
    external_id: Mapped[str | None]
    received_at: Mapped[datetime]
    attempt: Mapped[int] = mapped_column(default=0)
    max_attempts: Mapped[int]
    lease_owner: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None]
    doorbell_at: Mapped[datetime | None]
    """When a message for this job was last put on the queue."""
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
    """When the last certificate that is owed was issued. A job with a verdict and without this is owed one."""

    __table_args__ = (
        Index("ix_jobs_tenant_created", "tenant_id", "created_at", "id"),
        Index(
            "ix_jobs_unfinished", "state", "lease_expires_at", postgresql_where=text("state IN ('queued', 'running')")
        ),
        Index(
            "ix_jobs_unpurged", "finished_at", postgresql_where=text("finished_at IS NOT NULL AND purged_at IS NULL")
        ),
        Index(
            "ix_jobs_uncertified", "finished_at", postgresql_where=text("verdict IS NOT NULL AND certified_at IS NULL")
        ),
    )


class JobEvent(Base):
    """What happened to a job, in order. `seq` counts from 1 within the job and is the id of the server-sent event."""

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
    """A file that a finished job left: report, weights, certificates. Only a final commit and `services.evidence` write here."""

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


class Outbox(Base):
    """A message that a committed transaction owes the world; the relay sends it, then deletes the row."""

    __tablename__ = "outbox"
    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    kind: Mapped[str]
    """`doorbell`: ring the queue for a job."""
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class SigningKey(Base):
    """A public key under which certificates were signed. Its private half is in a file that the relay alone can read."""

    __tablename__ = "signing_keys"
    id: Mapped[str] = mapped_column(primary_key=True)
    """As `shared.public_keys.key_id` computes it."""
    public_key: Mapped[str]
    """PEM."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    revoked_at: Mapped[datetime | None]
