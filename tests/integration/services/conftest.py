"""What the tests of the services share."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from services.access import api_keys
from services.catalog import datasets
from services.jobs import submission
from shared.ports.object_storage import Storage
from shared.postgres.database import Database
from shared.settings import Settings
from tests.support import requests


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    """One transaction."""
    with database.transaction() as session:
        yield session


@pytest.fixture
def tenant(database: Database) -> str:
    """A tenant's id."""
    with database.transaction() as session:
        return api_keys.tenant_named(session, "tests").id


@pytest.fixture
def stranger(database: Database) -> str:
    """Another tenant's id."""
    with database.transaction() as session:
        return api_keys.tenant_named(session, "others").id


@pytest.fixture
def clip(settings: Settings, tmp_path: Path) -> Path:
    """A folder that the server allows as a model."""
    settings.path_roots.append(tmp_path)
    folder = tmp_path / "clip"
    folder.mkdir()
    return folder


@pytest.fixture
def submit(database: Database, tenant: str, settings: Settings, clip: Path) -> Callable[..., str]:
    """Submits a job in a transaction of its own and returns its id."""

    def submit_job(**changes: object) -> str:
        with database.transaction() as session:
            return submission.submit(session, tenant, requests.names_only(clip, **changes), settings).id

    return submit_job


@pytest.fixture
def upload(database: Database, tenant: str, settings: Settings, storage: Storage, tmp_path: Path) -> Callable[..., str]:
    """Uploads a data set with these classes and returns its id."""

    def upload_classes(*classes: str, images: int = 2, purge_after_job: bool | None = None) -> str:
        path = requests.archive(tmp_path / "upload.zip", *classes, images=images)
        summary = datasets.inspect(path, settings)
        stored = datasets.store(storage, tenant, path, settings)
        with database.transaction() as session:
            return datasets.add(
                session,
                tenant_id=tenant,
                stored=stored,
                name="upload",
                size_bytes=path.stat().st_size,
                summary=summary,
                purge_after_job=purge_after_job,
            ).id

    return upload_classes
