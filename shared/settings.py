"""Settings, read from `EFFACE_*` variables (or a `.env` file). Units are in the names."""

from functools import lru_cache
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
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
        None, description="the storage's address in signed URLs, where clients use another name for it"
    )
    database_pool_size: int = Field(10, ge=1)

    # The HTTP door.
    host: str = "127.0.0.1"
    port: int = Field(8080, ge=0, le=65535)
    public_url: str | None = None
    max_body_bytes: int = Field(1 * MIB, description="JSON bodies")
    max_upload_bytes: int = Field(8192 * MIB, description="a checkpoint or a data set archive")
    weights_url_seconds: int = Field(300, ge=1, le=604_800, description="how long a signed download URL lives")

    # What a request may refer to on this server.
    path_roots: list[Path] = Field(
        default_factory=list, description="a local path in a request must lie below one of these"
    )
    allow_hub: bool = Field(False, description="accept hf-hub: references and pretrained tags, which download")

    # Data sets.
    max_archive_images: int = 2_000_000
    max_archive_expanded_bytes: int = 64 * 1024 * MIB
    max_archive_ratio: int = Field(200, description="expanded over packed; more is taken for a bomb")
    max_image_pixels: int = 40_000_000

    # The life of a job.
    max_attempts: int = Field(3, ge=1)
    lease_seconds: float = Field(90.0, gt=0)
    heartbeat_seconds: float = Field(
        2.0, gt=0, description="how often the lease is renewed and a cancel is noticed; at most a third of the lease"
    )
    kill_grace_seconds: float = Field(5.0, ge=0, description="between SIGTERM and SIGKILL")
    job_seconds: float = Field(6 * 3600.0, gt=0, description="wall clock for one attempt")
    relay_seconds: float = Field(1.0, gt=0, description="the relay looks this often even when nothing wakes it")
    reconcile_seconds: float = Field(30.0, gt=0)
    republish_seconds: float = Field(
        60.0, gt=0, description="a job queued this long without a claim gets a new message"
    )

    # Certificates.
    signing_dir: Path = Field(Path(".efface/signing"), description="keys that sign certificates; the relay's alone")
    certificate_names: bool = Field(
        True, description="name the forgotten classes in certificates; off where a class is a person's name"
    )
    image_digest: str | None = Field(None, description="of the container image that runs, for certificates")

    # Workers.
    pipeline: str = Field("worker.pipeline:run_pipeline", description="what a child runs, as module:function")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1")
    runtime_dir: Path | None = Field(None, description="where the worker keeps its socket; a temporary folder if unset")

    # Logs.
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["json", "console"] = "json"

    @field_validator("image_digest")
    @classmethod
    def _empty_is_none(cls, value: str | None) -> str | None:
        return value or None  # compose passes on a variable that nobody set as an empty one

    @model_validator(mode="after")
    def _lease_outlives_a_missed_heartbeat(self) -> Self:
        if self.heartbeat_seconds > self.lease_seconds / 3:
            raise ValueError("EFFACE_HEARTBEAT_SECONDS must be at most a third of EFFACE_LEASE_SECONDS")
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
