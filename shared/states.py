"""The words of a job's life, spelled once."""

from enum import StrEnum


class JobState(StrEnum):
    """Where a job is. `queued -> running -> succeeded | failed | cancelled`; the last three are
    final.
    """

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
    METRICS_READ = "metrics:read"
    """Figures of the whole deployment, every tenant's jobs among them."""
    ADMIN = "admin"


class Ground(StrEnum):
    """Why an erasure is refused, by article of the GDPR."""

    IDENTITY_NOT_VERIFIED = "identity_not_verified"
    """12(2), 12(6): the person could not be identified."""
    MANIFESTLY_UNFOUNDED = "manifestly_unfounded"
    """12(5)(b)."""
    EXCESSIVE = "excessive"
    """12(5)(b)."""
    NO_MATCH = "no_match"
    """Nothing of the person is in the model."""
    NO_GROUND_FOR_ERASURE = "no_ground_for_erasure"
    """None of the grounds of 17(1) applies."""
    FREEDOM_OF_EXPRESSION = "freedom_of_expression"
    """17(3)(a)."""
    LEGAL_OBLIGATION = "legal_obligation"
    """17(3)(b): also a task in the public interest."""
    PUBLIC_HEALTH = "public_health"
    """17(3)(c)."""
    ARCHIVING_OR_RESEARCH = "archiving_or_research"
    """17(3)(d)."""
    LEGAL_CLAIMS = "legal_claims"
    """17(3)(e)."""


class DeliveryState(StrEnum):
    """Where a call to a webhook is."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"
    """No try is left, or its endpoint was disabled."""


class CallKind(StrEnum):
    """Whose conventions a call to a webhook follows."""

    STANDARD = "standard"
    """Standard Webhooks 1.0.0."""
    OPENDSR = "opendsr"
    """OpenDSR 2.0, section 8.5."""
    FIDES = "fides"
    """The call-back of an asynchronous connector of Fides."""


class ProcessKind(StrEnum):
    """What a process of the service is that says that it lives."""

    WORKER = "worker"
    RELAY = "relay"


class DoorbellState(StrEnum):
    """How a worker and its Celery consumer stand. Whatever it is, the worker finds its jobs in
    Postgres.
    """

    HEARD = "heard"
    """Messages are taken as they come."""
    SILENT = "silent"
    """Messages lay in Redis and the consumer took none; it was made anew and has taken none
    since.
    """
    AWAY = "away"
    """Redis does not answer."""


WAKE_TASK = "efface.wake"
"""The one task. Its message carries nothing: it says that some job waits, and the worker finds
out which.
"""
FORMER_WAKE_TASK = "efface.run_job"
"""What relays of the version before send, with the id of some job, which is not looked at."""
