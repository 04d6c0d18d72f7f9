"""The words of a job's life, spelled once."""

from enum import StrEnum


class JobState(StrEnum):
    """Where a job is. `queued -> running -> succeeded | failed | cancelled`; the last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """True once nothing more can happen to the job."""
        return self in FINAL_STATES


FINAL_STATES = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})


class Stage(StrEnum):
    """What a running job is doing. A method uses those of the middle four that it has."""

    PREPARING = "preparing"
    SYNTHESIZING = "synthesizing"
    FORGETTING = "forgetting"
    REMINDING = "reminding"
    RESTORING = "restoring"
    AUDITING = "auditing"
    PUBLISHING = "publishing"


class Scope(StrEnum):
    """What an API key may do. `admin` includes every other scope of its tenant."""

    JOBS_READ = "jobs:read"
    JOBS_WRITE = "jobs:write"
    MODELS_READ = "models:read"
    MODELS_WRITE = "models:write"
    DATASETS_READ = "datasets:read"
    DATASETS_WRITE = "datasets:write"
    ADMIN = "admin"


RUN_JOB_TASK = "efface.run_job"
"""The one task name. Its message carries a job id and nothing else."""
