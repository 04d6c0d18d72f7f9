"""One job, and what happens to it transaction by transaction, with no worker."""

from collections.abc import Callable
from datetime import timedelta

from sqlalchemy import func, select, update

from services.jobs import ending, lifecycle, queries
from shared.postgres.database import Database
from shared.postgres.tables import Job
from shared.schemas.job import JobView
from shared.schemas.result import ArtifactRecord, PipelineResult


class World:
    """One job and the database it is in."""

    def __init__(self, database: Database, tenant: str, job: str) -> None:
        self.database, self.tenant, self.job = database, tenant, job

    def do(self, function: Callable[..., object], *arguments: object, **options: object) -> object:
        """Call a function of the life cycle on the job, in a transaction."""
        with self.database.transaction() as session:
            return function(session, self.job, *arguments, **options)

    def claim(self) -> lifecycle.Claim | None:
        """Claim the job as worker `w`."""
        with self.database.transaction() as session:
            return lifecycle.claim(session, self.job, "w", 60)

    def cancel(self) -> JobView:
        """Cancel the job."""
        with self.database.transaction() as session:
            return ending.cancel(session, self.tenant, self.job)

    def expire(self) -> None:
        """Let the lease run out."""
        with self.database.transaction() as session:
            session.execute(update(Job).values(lease_expires_at=func.clock_timestamp() - timedelta(seconds=1)))

    def take_back(self) -> int:
        """Reconcile."""
        with self.database.transaction() as session:
            return lifecycle.take_back(session)

    def view(self) -> JobView:
        """Return the job."""
        with self.database.transaction() as session:
            return queries.get(session, self.tenant, self.job)

    def count(self, table: type) -> int:
        """Return how many rows a table has."""
        with self.database.transaction() as session:
            return session.scalar(select(func.count()).select_from(table)) or 0


def passed(world: World, attempt: int) -> PipelineResult:
    """Return the result of an attempt that met every threshold."""
    key = f"tenants/{world.tenant}/jobs/{world.job}/{attempt}/model/open_clip_model.safetensors"
    weights = ArtifactRecord(name="model/open_clip_model.safetensors", key=key, sha256="ab", size_bytes=3)
    return PipelineResult(verdict="passed", error=None, artifacts=(weights,), architecture="ViT", model_digest="ab")
