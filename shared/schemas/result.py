"""What a pipeline hands to whoever commits it: everything is in object storage already, this
says what and where.
"""

from typing import Literal

from shared.schemas.base import Schema
from shared.schemas.job import JobError


class ArtifactRecord(Schema):
    """A file that was written below the attempt's prefix."""

    name: str
    """`report.json`, `model/open_clip_model.safetensors`, ..."""
    key: str
    sha256: str
    size_bytes: int
    quarantined: bool = False


class PipelineResult(Schema):
    """How a run ended."""

    verdict: Literal["passed", "failed"]
    error: JobError | None
    """Set where the verdict is failed."""
    artifacts: tuple[ArtifactRecord, ...]
    architecture: str
    model_digest: str
    """SHA-256 of the new weights."""
