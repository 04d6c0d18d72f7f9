"""A job as the pipeline gets it: the request with every reference resolved to something that can be opened."""

from shared.schemas.base import Schema
from shared.schemas.request import ErasureRequest, Thresholds


class ModelSource(Schema):
    """Where the weights are."""

    reference: str
    """`storage:<prefix>`, `local-dir:<folder>`, `hf-hub:<repository>`, `open_clip:<architecture>/<tag>`."""
    id: str | None = None
    digest: str | None = None
    """SHA-256 of the weights, where it is known before they are opened."""


class DataSource(Schema):
    """Where a data set is."""

    name: str
    uri: str
    """`storage:<key>` of an archive, or an absolute path of an archive or a class folder."""
    id: str | None = None
    digest: str | None = None


class DataSources(Schema):
    """The images of a request, by role."""

    forget: DataSource | None = None
    retain: DataSource | None = None
    calibration: DataSource | None = None
    proxy: DataSource | None = None
    forget_test: DataSource | None = None
    retain_test: DataSource | None = None
    evaluation: tuple[DataSource, ...] = ()


class JobSpec(Schema):
    """All that a worker's child needs: no look-ups are left to do."""

    job_id: str
    tenant_id: str
    attempt: int
    request: ErasureRequest
    thresholds: Thresholds
    """The request's thresholds with the defaults filled in."""
    model: ModelSource
    data: DataSources

    @property
    def job_prefix(self) -> str:
        """Object prefix of everything that belongs to the job."""
        return f"tenants/{self.tenant_id}/jobs/{self.job_id}"

    @property
    def attempt_prefix(self) -> str:
        """Object prefix of this attempt's artifacts: the fence, seen from the storage."""
        return f"{self.job_prefix}/{self.attempt}"

    @property
    def checkpoint_prefix(self) -> str:
        """Object prefix of the stage checkpoints, shared by all attempts."""
        return f"{self.job_prefix}/checkpoints"

    @property
    def cache_prefix(self) -> str:
        """Object prefix of what may be reused by the tenant's later jobs."""
        return f"tenants/{self.tenant_id}/cache"
