"""A real server on a free port, keys for two tenants, and jobs in every state."""

import hashlib
import io
import zipfile
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest
from PIL import Image
from structlog.testing import capture_logs

from api.client import Client
from services.access import api_keys
from services.catalog import models
from services.jobs import lifecycle, submission
from shared.files.inspection import Inspectors
from shared.ports.object_storage import Storage
from shared.postgres.database import Database
from shared.schemas.job import JobError
from shared.schemas.request import ErasureRequest
from shared.schemas.result import ArtifactRecord, PipelineResult
from shared.settings import Settings
from shared.states import Scope, Stage
from tests.support.connections import watched
from tests.support.servers import serving

WEIGHTS = bytes(range(256)) * 40
REPORT = b"""{"verdict": "passed", "thresholds": [], "evaluations": [],
 "target": {"accuracy": null, "synthetic_accuracy": null, "siblings": null}}"""

PAGE = "<!DOCTYPE html><title>Forgetting “horse”</title>".encode()


@pytest.fixture(autouse=True)
def no_connection_waits_for_the_storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Fails every test in which the storage is asked while its caller holds a connection of the database."""
    with watched(monkeypatch) as found:
        yield found
    assert found == [], "a connection was held while the storage answered"


@pytest.fixture
def logs() -> Iterator[list[MutableMapping[str, Any]]]:
    """What is logged, as dictionaries; rendered for a terminal a traceback would take seconds."""
    with capture_logs() as captured:
        yield captured


@pytest.fixture(scope="session")
def inspectors() -> Iterator[Inspectors]:
    """Inspectors of the whole session: to start some for each server would take longer than most tests."""
    kept = Inspectors(2)
    yield kept
    Inspectors.close(kept)


@pytest.fixture(autouse=True)
def servers_share_inspectors(monkeypatch: pytest.MonkeyPatch, inspectors: Inspectors) -> None:
    """Servers take the session's inspectors, and leave them running."""
    monkeypatch.setattr(inspectors, "close", lambda: None)
    monkeypatch.setattr("api.upload_desk.Inspectors", lambda count: inspectors)


@pytest.fixture
def serve(database: Database, logs) -> Iterator[Callable[[Settings], str]]:
    """Starts servers, and stops them when the test ends."""
    with ExitStack() as running:
        yield lambda settings: running.enter_context(serving(settings))


@pytest.fixture
def server(serve, settings: Settings) -> str:
    """The URL of a server."""
    return serve(settings)


@pytest.fixture
def make_key(database: Database) -> Callable[..., str]:
    """Makes API keys."""

    def make(tenant: str = "alice", scopes: tuple[Scope, ...] = (Scope.ADMIN,)) -> str:
        with database.transaction() as session:
            return api_keys.create(session, tenant=tenant, name="test", scopes=scopes)[1]

    return make


@pytest.fixture
def connect(server: str, make_key) -> Iterator[Callable[..., httpx.Client]]:
    """Opens HTTP connections with a key."""
    opened = []

    def open_(tenant: str = "alice", scopes: tuple[Scope, ...] = (Scope.ADMIN,)) -> httpx.Client:
        headers = {"Authorization": f"Bearer {make_key(tenant, scopes)}"}
        opened.append(httpx.Client(base_url=server, headers=headers, timeout=20))
        return opened[-1]

    yield open_
    for connection in opened:
        connection.close()


@pytest.fixture
def alice(connect) -> httpx.Client:
    """A tenant's connection, with every scope."""
    return connect("alice")


@pytest.fixture
def bob(connect) -> httpx.Client:
    """Another tenant's connection, with every scope."""
    return connect("bob")


@pytest.fixture
def alice_client(server: str, make_key) -> Iterator[Client]:
    """The typed client, for the same tenant."""
    with Client(server, make_key("alice")) as client:
        yield client


def sound_request(database: Database) -> dict[str, object]:
    """Make a model of alice's and return a request about it."""
    with database.transaction() as session:
        tenant_id = api_keys.tenant_named(session, "alice").id
        values: dict[str, object] = {"id": "mdl_alice", "reference": "storage:nowhere"}
        model = models.add(session, tenant_id=tenant_id, name="clip", values=values)
    return {
        "model": {"id": model.id},
        "target": {"type": "class", "class": "horse", "labels": ["horse", "cow"]},
        "method": {"name": "synthetic"},
    }


@pytest.fixture
def request_body(database: Database, alice: httpx.Client) -> dict[str, object]:
    """A sound erasure request on a model of alice's."""
    return sound_request(database)


@dataclass
class JobMaker:
    """Brings jobs of alice's to where a test wants them, by what workers call."""

    database: Database
    storage: Storage
    settings: Settings
    request: dict[str, object]

    def queued(self, **changes: object) -> str:
        with self.database.transaction() as session:
            request = ErasureRequest.model_validate(self.request | changes)
            return submission.submit(session, self.tenant_id(session), request, self.settings).id

    def running(self, **changes: object) -> str:
        job_id = self.queued(**changes)
        self.claim(job_id)
        return job_id

    def claim(self, job_id: str) -> None:
        with self.database.transaction() as session:
            assert lifecycle.claim(session, job_id, "worker", 60)

    def enter(self, job_id: str, stage: Stage) -> None:
        with self.database.transaction() as session:
            assert lifecycle.enter_stage(session, job_id, 1, stage)

    def step(self, job_id: str, step: int, progress: float | None, **metrics: float) -> None:
        with self.database.transaction() as session:
            done = lifecycle.Step(Stage.FORGETTING, step, metrics)
            assert lifecycle.record_steps(session, job_id, 1, [done], progress)

    def succeeded(self, report: bytes = REPORT) -> str:
        job_id = self.running()
        self.finish(job_id, passed=True, report=report)
        return job_id

    def missed(self) -> str:
        """A job that missed a threshold."""
        job_id = self.running()
        self.finish(job_id, passed=False)
        return job_id

    def finish(
        self, job_id: str, *, passed: bool, report: bytes = REPORT, also: Mapping[str, bytes] | None = None
    ) -> None:
        folder = "model" if passed else "quarantine"
        files = {"report.json": report, "report.html": PAGE, f"{folder}/open_clip_model.safetensors": WEIGHTS}
        files[f"{folder}/open_clip_config.json"] = b"{}"
        files |= also or {}
        records = []
        for name, content in files.items():
            key = f"tenants/t/jobs/{job_id}/1/{name}"
            self.storage.put(key, content)
            sha256 = hashlib.sha256(content).hexdigest()
            records.append(ArtifactRecord(name=name, key=key, sha256=sha256, size_bytes=len(content)))
        error = None if passed else JobError(code="thresholds_not_met", message="Too much is left.")
        verdict: Literal["passed", "failed"] = "passed" if passed else "failed"
        result = PipelineResult(
            verdict=verdict, error=error, artifacts=tuple(records), architecture="ViT", model_digest="00"
        )
        with self.database.transaction() as session:
            assert lifecycle.complete(session, job_id, 1, result)

    @staticmethod
    def tenant_id(session) -> str:
        return api_keys.tenant_named(session, "alice").id


@pytest.fixture
def make_job(database: Database, storage: Storage, settings: Settings, request_body) -> JobMaker:
    """Makes jobs of alice's."""
    return JobMaker(database, storage, settings, request_body)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A zip of two classes, two images each."""
    path = tmp_path / "farm.zip"
    with zipfile.ZipFile(path, "w") as file:
        for name in ("horse/1.png", "horse/2.png", "cow/1.png", "cow/2.png"):
            image = io.BytesIO()
            Image.new("RGB", (8, 8), (10, 20, 30)).save(image, "PNG")
            file.writestr(name, image.getvalue())
    return path
