"""Settings, read from `EFFACE_*` variables (or a `.env` file). Units are in the names."""

from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import Field, IPvAnyNetwork, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

MIB = 1024 * 1024


class Settings(BaseSettings):
    """Every knob that an operator has, with a default that works on one machine."""

    model_config = SettingsConfigDict(env_prefix="EFFACE_", env_file=".env", extra="ignore")

    # Parts. No default password: a deployment must say where its Postgres and Redis are.
    database_url: SecretStr = SecretStr("postgresql://localhost/efface")
    redis_url: SecretStr = SecretStr("redis://localhost:6379/0")
    storage_url: str = Field(
        "file://.efface/objects", description="file://, s3://, gs:// or az://; credentials as usual"
    )
    storage_public_endpoint: str | None = Field(
        None,
        description="the storage's address in signed URLs, where clients use another name for it",
    )
    database_service_role: str | None = Field(
        None,
        description=(
            "where migrations run as another role: the one of the service, which 'efface "
            "migrate' gives its rights"
        ),
    )
    database_pool_size: int = Field(
        20, ge=1, description="connections that one process holds, at most"
    )

    # The HTTP door.
    host: str = "127.0.0.1"
    port: int = Field(8080, ge=0, le=65535)
    public_url: str | None = Field(
        None,
        description=(
            "address that clients use; OpenDSR takes https:// and the domain of its "
            "certificate if unset"
        ),
    )
    max_connections: int = Field(
        2000, ge=10, description="connections of one gateway process; 503 beyond"
    )
    max_body_bytes: int = Field(1 * MIB, description="JSON bodies")
    max_upload_bytes: int = Field(8192 * MIB, description="a checkpoint or a data set archive")
    weights_url_seconds: int = Field(
        300, ge=1, le=604_800, description="how long a signed download URL lives"
    )

    # Who may do how much. 0 switches a limit off.
    rate_limit_requests: int = Field(6000, ge=0, description="requests of one tenant in a window")
    rate_limit_seconds: int = Field(60, ge=1, description="the window")
    max_unfinished_jobs: int = Field(
        1000, ge=0, description="queued and running jobs of one tenant"
    )
    max_tenant_bytes: int = Field(
        256 * 1024 * MIB, ge=0, description="of all data sets and models of one tenant"
    )
    max_tenant_datasets: int = Field(1000, ge=0, description="data sets of one tenant")
    max_tenant_models: int = Field(
        1000, ge=0, description="models that one tenant has uploaded or registered"
    )
    max_streams: int = Field(
        20, ge=0, description="event streams of one tenant at a time, in one gateway process"
    )
    stream_seconds: float = Field(
        3600.0, gt=0, description="an event stream ends after this; clients go on where it did"
    )
    idempotency_seconds: int = Field(
        24 * 3600,
        ge=1,
        description="how long the answer under an Idempotency-Key is kept and replayed",
    )
    token_seconds: int = Field(
        3600, ge=1, le=24 * 3600, description="life of an OAuth2 access token"
    )
    key_grace_seconds: int = Field(
        24 * 3600, ge=0, description="how long a rotated key's old secret still works"
    )

    # The console.
    console_session_seconds: int = Field(
        8 * 3600, ge=60, le=7 * 24 * 3600, description="how long a person stays signed in"
    )
    console_link_seconds: int = Field(
        900, ge=30, le=24 * 3600, description="life of a sign-in link, which works once"
    )

    # Uploads. Each of these holds for one gateway process.
    max_uploads: int = Field(8, ge=1, description="uploads under way at a time, of all tenants")
    max_tenant_uploads: int = Field(
        2, ge=1, description="uploads of one tenant under way at a time"
    )
    upload_wait_seconds: float = Field(
        30.0, ge=0, description="how long another upload waits for its turn"
    )
    upload_idle_seconds: float = Field(
        60.0, gt=0, description="how long an upload may send nothing"
    )
    max_scratch_bytes: int | None = Field(
        None,
        ge=1,
        description="temporary files of all uploads under way; what the disk has free if unset",
    )
    unfinished_upload_hours: float = Field(
        6.0, gt=0, description="an upload that has been stored for so long has died, and is deleted"
    )
    inspectors: int = Field(
        2, ge=1, description="processes that check what was uploaded, one upload each at a time"
    )
    max_inspection_bytes: int = Field(
        1024 * MIB, ge=256 * MIB, description="memory that checking one upload may take"
    )
    max_inspection_seconds: float = Field(
        1800.0,
        ge=1,
        description="processor time that checking one upload may take; small ones get less",
    )

    # What a request may refer to on this server.
    path_roots: list[Path] = Field(
        default_factory=list, description="a local path in a request must lie below one of these"
    )
    allow_hub: bool = Field(
        False, description="accept hf-hub: references and pretrained tags, which download"
    )

    # Data sets.
    max_archive_images: int = 2_000_000
    max_archive_expanded_bytes: int = 64 * 1024 * MIB
    max_archive_ratio: int = Field(
        200, description="expanded over packed; more is taken for a bomb"
    )
    max_image_pixels: int = 40_000_000

    # What is kept, and for how long. Each default is the shortest that a normal course of work can
    # live with.
    master_key: SecretStr | None = Field(
        None,
        description=(
            "seals secrets and the keys of data sets: 32 bytes in base64; after a comma, "
            "older ones that still open"
        ),
    )
    unused_upload_hours: float = Field(
        24.0, gt=0, description="a data set that no job has used is purged after this"
    )
    dataset_retention_days: float = Field(
        7.0,
        gt=0,
        description="a data set that no job forgets is purged this long after its last use",
    )
    quarantine_retention_days: float | None = Field(
        30.0,
        gt=0,
        description=(
            "weights that missed a threshold are deleted this long after the job's end; "
            "never if empty"
        ),
    )
    report_retention_days: float | None = Field(
        None,
        gt=0,
        description=(
            "reports are deleted this long after the job's end, once it is certified; "
            "never if empty"
        ),
    )
    delivery_log_days: float = Field(
        7.0,
        ge=4,
        description="how a webhook call went is kept this long; the tries alone take three days",
    )

    # Evidence.
    audit_key_file: Path | None = Field(
        None,
        description=(
            "Ed25519 private key (PEM) that signs the head of the audit log; unsigned if unset"
        ),
    )
    processor_name: str | None = Field(
        None, description="name and address, for the record of processing"
    )
    processor_contact: str | None = None
    processor_dpo: str | None = Field(
        None, description="the data protection officer, where there is one"
    )
    third_countries: str | None = Field(
        None, description="transfers and their safeguards; none if unset"
    )

    # The life of a job.
    max_attempts: int = Field(3, ge=1)
    lease_seconds: float = Field(90.0, gt=0)
    heartbeat_seconds: float = Field(
        2.0,
        gt=0,
        description=(
            "how often the lease is renewed and a cancel is noticed; at most a third of the lease"
        ),
    )
    kill_grace_seconds: float = Field(5.0, ge=0, description="between SIGTERM and SIGKILL")
    job_seconds: float = Field(6 * 3600.0, gt=0, description="wall clock for one attempt")
    look_seconds: float = Field(
        5.0,
        gt=0,
        le=60,
        description="an idle worker looks for a job this often even when nothing wakes it",
    )
    tenant_weights: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict,
        description=(
            "tenants, by name, that may have more (or fewer) jobs running than others; 1 each"
        ),
    )
    relay_seconds: float = Field(
        1.0, gt=0, description="the relay looks this often even when nothing wakes it"
    )
    reconcile_seconds: float = Field(30.0, gt=0)
    sweep_seconds: float = Field(
        3600.0, gt=0, description="how often uploads are looked for that no row knows of"
    )
    republish_seconds: float = Field(
        60.0, gt=0, description="a job queued this long without a claim gets a new message"
    )

    # Certificates.
    signing_dir: Path = Field(
        Path(".efface/signing"), description="keys that sign certificates; the relay's alone"
    )
    certificate_names: bool = Field(
        True,
        description=(
            "name the forgotten classes in certificates; off where a class is a person's name"
        ),
    )
    image_digest: str | None = Field(
        None, description="of the container image that runs, for certificates"
    )

    # OpenDSR.
    opendsr_key_file: Path | None = Field(
        None,
        description=(
            "RSA private key (PEM) that signs answers and call-backs; OpenDSR is off if unset"
        ),
    )
    opendsr_certificate_file: Path | None = Field(
        None,
        description=(
            "its X.509 certificate (PEM, chain after it), whose first name is the "
            "processor's domain"
        ),
    )

    # Fides.
    fides_url: str | None = Field(
        None,
        description=(
            "the one Fides that may be called back, as https://fides.example.com; none if unset"
        ),
    )

    # Workers.
    pipeline: str = Field(
        "worker.pipeline:run_pipeline", description="what a child runs, as module:function"
    )
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1")
    isolation: Literal["auto", "off"] = Field(
        "auto",
        description=(
            "auto: a job's process has no network where it needs none and the kernel allows that"
        ),
    )
    child_memory_bytes: int = Field(
        0, ge=0, description="address space of a job's process (RLIMIT_AS); 0 is no limit"
    )
    child_environment: list[str] = Field(
        default_factory=list,
        description="further variables of the worker that a job's process may see",
    )
    runtime_dir: Path | None = Field(
        None, description="where the worker keeps its socket; a temporary folder if unset"
    )

    # Deadlines and webhooks.
    deadline_time_zone: ZoneInfo = Field(
        ZoneInfo("UTC"), description="where the controller's days begin and end"
    )
    webhook_timeout_seconds: float = Field(
        20.0, gt=0, le=60, description="a whole call, from the name's resolution on"
    )
    webhook_concurrency: int = Field(32, ge=1, description="calls that one relay makes at a time")
    webhook_allow_networks: list[IPvAnyNetwork] = Field(
        default_factory=list,
        description="networks that may be called though they are not public, also without TLS",
    )
    webhook_grace_seconds: float = Field(
        24 * 3600.0, ge=0, description="how long the secret before a rotation signs along"
    )

    # Logs.
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["json", "console"] = "json"

    @field_validator(
        "image_digest",
        "public_url",
        "audit_key_file",
        "opendsr_key_file",
        "opendsr_certificate_file",
        "fides_url",
        "database_service_role",
        "quarantine_retention_days",
        "report_retention_days",
        mode="before",
    )
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return (
            None if value == "" else value
        )  # compose passes on a variable that nobody set as an empty one

    @field_validator("redis_url")
    @classmethod
    def _both_clients_know_the_url(cls, value: SecretStr) -> SecretStr:
        if not value.get_secret_value().startswith(("redis://", "rediss://")):
            raise ValueError("must begin with redis:// or rediss://: one server, over TCP or TLS")
        return value

    @model_validator(mode="after")
    def _lease_outlives_a_missed_heartbeat(self) -> Self:
        if self.heartbeat_seconds > self.lease_seconds / 3:
            raise ValueError(
                "EFFACE_HEARTBEAT_SECONDS must be at most a third of EFFACE_LEASE_SECONDS"
            )
        if self.kill_grace_seconds > self.lease_seconds / 2:
            raise ValueError(
                "EFFACE_KILL_GRACE_SECONDS must be at most half of EFFACE_LEASE_SECONDS"
            )
        return self

    def sqlalchemy_url(self) -> str:
        """Return the database URL with the driver that we use."""
        url = self.database_url.get_secret_value()
        for prefix in ("postgresql+psycopg://", "postgresql://", "postgres://"):
            if url.startswith(prefix):
                return "postgresql+psycopg://" + url.removeprefix(prefix)
        return url


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """Return the settings of this process, read once."""
    return Settings()
