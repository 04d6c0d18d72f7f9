"""A job as the pipeline gets it: the request with every reference resolved to something that can
be opened.
"""

from collections.abc import Callable
from typing import Self

from pydantic import Field

from shared.schemas.base import Schema
from shared.schemas.request import ErasureRequest, Thresholds
from shared.schemas.resolution import RequestWarning

ROLES = ("forget", "retain", "calibration", "proxy", "forget_test", "retain_test")
"""The roles that one data set has."""
LISTS = ("evaluation", "earlier")
"""The roles that any number of data sets may have."""


class ModelSource(Schema):
    """Where the weights are."""

    reference: str
    """`storage:<prefix>`, `local-dir:<folder>`, `hf-hub:<repository>`,
    `open_clip:<architecture>/<tag>`.
    """
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
    data_key: str | None = Field(
        None, description="base64; sealed as a worker gets it, opened as its child does"
    )
    purged: bool = Field(False, description="true where it goes with the last job that uses it")
    skip_invalid: bool = Field(
        False, description="true where what cannot be used was left out when it came in"
    )


class DataSources(Schema):
    """The images of a request, by role."""

    forget: DataSource | None = None
    retain: DataSource | None = None
    calibration: DataSource | None = None
    proxy: DataSource | None = None
    forget_test: DataSource | None = None
    retain_test: DataSource | None = None
    evaluation: tuple[DataSource, ...] = ()
    earlier: tuple[DataSource, ...] = ()

    def all(self) -> tuple[DataSource, ...]:
        """Return every source; one that has several roles comes several times."""
        given = (source for source in self._roles().values() if source is not None)
        return (*given, *self.evaluation, *self.earlier)

    def forgotten(self) -> set[str]:
        """Return the URIs of what no prediction may be kept of when the job has ended: what is
        forgotten, and what is purged.
        """
        given = {
            source.uri
            for source in (self.forget, self.forget_test, *self.earlier)
            if source is not None
        }
        return given | {source.uri for source in self.all() if source.purged}

    def mapped(self, change: Callable[[DataSource], DataSource]) -> Self:
        """Return the same with every source changed."""
        roles = {role: source and change(source) for role, source in self._roles().items()}
        lists = {name: tuple(map(change, getattr(self, name))) for name in LISTS}
        return self.model_copy(update=roles | lists)

    def _roles(self) -> dict[str, DataSource | None]:
        return {name: getattr(self, name) for name in type(self).model_fields if name not in LISTS}


class JobSpec(Schema):
    """All that a worker's child needs: no look-ups are left to do."""

    job_id: str
    tenant_id: str
    attempt: int
    request: ErasureRequest
    thresholds: Thresholds
    """The request's thresholds with the defaults filled in."""
    model: ModelSource
    reference: ModelSource | None = None
    """`audit.reference`: a model that never saw what is forgotten."""
    data: DataSources
    warnings: tuple[RequestWarning, ...] = ()
    """What the request was told when it came."""
    data_key: str | None = Field(
        None,
        description=(
            "base64; sealed as a worker gets it, opened as its child does: what the job "
            "keeps is encrypted with it"
        ),
    )

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
    def job_cache_prefix(self) -> str:
        """Object prefix of what may be reused by the job's later attempts and goes with the job."""
        return f"{self.job_prefix}/cache"

    @property
    def cache_prefix(self) -> str:
        """Object prefix of what may be reused by the tenant's later jobs."""
        return f"tenants/{self.tenant_id}/cache"


def cached_evaluations(tenant_id: str, digest: str) -> str:
    """Return the object prefix of the predictions that are kept of a data set, by the digest of
    its archive.
    """
    return f"tenants/{tenant_id}/cache/evaluations/{digest}"
