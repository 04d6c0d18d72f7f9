"""A client of the HTTP door: one typed method for every call.

Usage:
    with Client("http://127.0.0.1:8080", key) as client:
        dataset = client.add_dataset(Path("images.tar"))
        job = client.submit(request)
        for job in client.watch(job.id):
            print(job.state, job.stage, job.progress)
"""

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import http_sf
import httpx

from api.connection import Advance, ApiProblem, Connection, Damaged, Unreachable
from api.packing import Body
from shared.crypto.public_keys import KEYS_PATH
from shared.errors import NotYet
from shared.files.tokenizer_files import TOKENIZER_NAMES, TOWER_CONFIG
from shared.schemas.base import Schema
from shared.schemas.dataset import DatasetView
from shared.schemas.job import EventView, JobDraft, JobView, MetricSeries
from shared.schemas.model import ModelView
from shared.schemas.purge import DatasetPurge, ModelPurge, PurgeReceipt

POLL_SECONDS = 2.0
CERTIFICATE_SECONDS = 0.5
STREAM_TIMEOUT = httpx.Timeout(40.0, connect=5.0)
"""Two and a half heartbeats of the event stream."""
PASSING = frozenset({httpx.codes.TOO_MANY_REQUESTS}) | frozenset(range(500, 600))
"""Statuses after which `watch` looks again."""
WEIGHTS_FILES = ("open_clip_config.json", "open_clip_model.safetensors")
TOKENIZER = b"hf_tokenizer_name"
"""Stands in the config of a model that has a tokenizer of its own, whose files lie beside the
weights.
"""

ViewT = TypeVar("ViewT", bound=Schema)

__all__ = ["Advance", "ApiProblem", "Client", "Damaged", "Unreachable"]


class Client:
    """Calls one server with one key.

    Every method raises `ApiProblem` where the server refuses, and `Unreachable` where it does
    not answer."""

    def __init__(
        self,
        base_url: str,
        key: str,
        *,
        timeout_seconds: float = 60.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Make a client; nothing is sent yet. `transport` replaces the network, for tests."""
        self._connection = Connection(base_url, key, timeout_seconds, transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()

    # Service
    # ----------------------------------------------------------------------------------------------

    def version(self) -> dict[str, Any]:
        """Return what runs there."""
        return dict(self._connection.call("GET", "/version").json())

    # Jobs
    # ----------------------------------------------------------------------------------------------

    def check(self, request: Mapping[str, Any]) -> JobDraft:
        """Have an erasure request checked, and return what would come of it; there is no job."""
        params = {"validate_only": True}
        return _view(
            JobDraft, self._connection.call("POST", "/jobs", json=request, params=params).json()
        )

    def submit(self, request: Mapping[str, Any], *, idempotency_key: str | None = None) -> JobView:
        """Submit an erasure request, as it stands in a REQUEST.json.

        Under an `idempotency_key` it can be sent again, whatever became of the first time: there
        is one job. `existing` is true where the tenant had a job for the same erasure already."""
        headers = (
            {} if idempotency_key is None else {"Idempotency-Key": http_sf.ser(idempotency_key)}
        )
        return _job(self._connection.call("POST", "/jobs", json=request, headers=headers))

    def job(self, job_id: str) -> JobView:
        """Return a job."""
        return _job(self._connection.call("GET", _path("jobs", job_id)))

    def jobs(self, **filters: str) -> Iterator[JobView]:
        """Yield jobs, newest first. Filters: state, method, model, external_id."""
        yield from self._listed("/jobs", JobView, filters)

    def cancel(self, job_id: str) -> JobView:
        """Cancel a job; doing it twice is no error."""
        return _job(self._connection.call("POST", _path("jobs", job_id, "cancel")))

    def hold(self, job_id: str, reason: str) -> JobView:
        """Stop the clock of a queued job and keep workers away from it; doing it twice is no
        error.
        """
        return self._ruling(job_id, "hold", {"reason": reason})

    def release(self, job_id: str) -> JobView:
        """Let a job that is on hold go on."""
        return self._ruling(job_id, "release")

    def extend(self, job_id: str, reason: str) -> JobView:
        """Extend the period of a job by two further months."""
        return self._ruling(job_id, "extend", {"reason": reason})

    def refuse(self, job_id: str, ground: str, detail: str | None = None) -> JobView:
        """Refuse an erasure on one of the grounds of `shared.states.Ground`; the job is
        cancelled.
        """
        return self._ruling(job_id, "refuse", {"ground": ground, "detail": detail})

    def watch(self, job_id: str, *, patience_seconds: float = 300.0) -> Iterator[JobView]:
        """Yield the job now, whenever it changes, and at last when it has ended.

        The event stream says when to look; where there is none, or it breaks, the job is polled
        with its ETag.

        Raises:
            Unreachable: the server has not answered for `patience_seconds`.
        """
        etag, seq, answered = "", 0, time.monotonic()
        while True:
            try:
                for event in self._nudges(job_id, after=seq):
                    seq = max(seq, event)
                    job, etag = self._if_changed(job_id, etag)
                    answered = time.monotonic()
                    if job is not None:
                        yield job
                        if job.state.final:
                            return
            except (Unreachable, ApiProblem) as error:
                passing = isinstance(error, Unreachable) or error.status in PASSING
                if not passing or time.monotonic() - answered > patience_seconds:
                    raise
            time.sleep(POLL_SECONDS)

    def events(self, job_id: str, *, after: int = 0) -> Iterator[EventView]:
        """Yield what has happened to a job so far, oldest first."""
        more = True
        while more:
            page = self._connection.call(
                "GET", _path("jobs", job_id, "events"), params={"after": after}
            ).json()
            for item in page["data"]:
                event = _view(EventView, item)
                after = event.seq
                yield event
            more = page["has_more"]

    def stream(self, job_id: str, *, after: int = 0) -> Iterator[EventView]:
        """Yield what has happened and what happens to a job, until it ends or the connection
        does.
        """
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
        with self._connection.opened(
            _path("jobs", job_id, "events"), headers=headers, timeout=STREAM_TIMEOUT
        ) as response:
            for line in response.iter_lines():
                if line.startswith("data:"):
                    yield _view(EventView, json.loads(line.removeprefix("data:")))

    def metrics(self, job_id: str) -> list[MetricSeries]:
        """Return every series that the method reported so far."""
        page = self._connection.call("GET", _path("jobs", job_id, "metrics")).json()
        return [_view(MetricSeries, item) for item in page["data"]]

    def report(self, job_id: str) -> dict[str, Any]:
        """Return the report of a job that has ended."""
        return dict(json.loads(self.report_file(job_id)))

    def report_file(self, job_id: str) -> bytes:
        """Return report.json byte for byte: its digest is in the certificate."""
        return self._connection.call("GET", _path("jobs", job_id, "report")).content

    def certificate(
        self, job_id: str, *, number: int | None = None, patience_seconds: float = 0.0
    ) -> bytes:
        """Return a certificate of a job: the last one, or the one of this number.

        It is issued soon after the job has ended; `patience_seconds` says how long to wait for it.
        """
        params = {} if number is None else {"number": number}
        deadline = time.monotonic() + patience_seconds
        while True:
            try:
                return self._connection.call(
                    "GET", _path("jobs", job_id, "certificate"), params=params
                ).content
            except ApiProblem as problem:
                if problem.code != NotYet.code or time.monotonic() > deadline:
                    raise
            time.sleep(CERTIFICATE_SECONDS)

    def public_keys(self) -> bytes:
        """Return the key set that the service publishes, with which its certificates are
        checked.
        """
        return self._connection.call("GET", KEYS_PATH).content

    def purge_receipt(self, job_id: str) -> PurgeReceipt:
        """Return what was deleted after a job that has ended."""
        return _view(
            PurgeReceipt,
            self._connection.call("GET", _path("jobs", job_id, "purge-receipt")).json(),
        )

    def report_page(self, job_id: str) -> str:
        """Return the report of a job that has ended as one HTML page."""
        return self._connection.call("GET", _path("jobs", job_id, "report.html")).text

    def weights(self, job_id: str, folder: Path, *, advance: Advance | None = None) -> Path:
        """Download the published model into `folder`, in open_clip's local-dir layout, and return
        the folder.

        Raises:
            Damaged: a file is not the one that the job published.
        """
        folder.mkdir(parents=True, exist_ok=True)
        path = _path("jobs", job_id, "weights")
        for name in WEIGHTS_FILES:
            self._connection.download(path, {"file": name}, folder / name, advance)
        if TOKENIZER in (folder / WEIGHTS_FILES[0]).read_bytes():
            for name in (*sorted(TOKENIZER_NAMES), TOWER_CONFIG):
                try:
                    self._connection.download(path, {"file": name}, folder / name, advance)
                except ApiProblem as problem:
                    if problem.status != httpx.codes.CONFLICT:  # this tokenizer has no such file
                        raise
        return folder

    # Models and data sets
    # --------------------------------------------------------------------------------------------

    def add_model(
        self,
        path: Path,
        *,
        name: str | None = None,
        architecture: str | None = None,
        advance: Advance | None = None,
    ) -> ModelView:
        """Upload a checkpoint, or an archive of a folder in open_clip's local-dir layout."""
        params = {"name": name or path.stem, "filename": path.name}
        if architecture is not None:
            params["architecture"] = architecture
        return _view(
            ModelView, self._connection.upload("/models", Body.of(path), params, advance).json()
        )

    def register_model(self, name: str, model: Mapping[str, str]) -> ModelView:
        """Register a model that is somewhere else: `model` is as in an erasure request."""
        return _view(
            ModelView,
            self._connection.call("POST", "/models", json={"name": name, "model": model}).json(),
        )

    def model(self, model_id: str) -> ModelView:
        """Return a model."""
        return _view(ModelView, self._connection.call("GET", _path("models", model_id)).json())

    def models(self) -> Iterator[ModelView]:
        """Yield models, newest first."""
        yield from self._listed("/models", ModelView)

    def delete_model(self, model_id: str) -> ModelPurge:
        """Delete a model and its files; return the receipt. Idempotent."""
        return _view(ModelPurge, self._connection.call("DELETE", _path("models", model_id)).json())

    def add_dataset(
        self,
        path: Path,
        *,
        name: str | None = None,
        purge_after_job: bool | None = None,
        skip_invalid: bool = False,
        advance: Advance | None = None,
    ) -> DatasetView:
        """Upload an archive of images, or a folder, packed on the way.

        Args:
            path: where it is.
            name: what to call it; by default the name of the file.
            purge_after_job: as in `DatasetView`.
            skip_invalid: leave out what cannot be used.
            advance: is told of bytes that were sent.

        Raises:
            InvalidRequest: the folder holds nothing.
        """
        body = Body.of(path)
        params = {"name": name or path.resolve().stem, "filename": body.name}
        if skip_invalid:
            params["skip_invalid"] = "true"
        if purge_after_job is not None:
            params["purge_after_job"] = str(purge_after_job).lower()
        return _view(
            DatasetView, self._connection.upload("/datasets", body, params, advance).json()
        )

    def dataset(self, dataset_id: str) -> DatasetView:
        """Return a data set."""
        return _view(
            DatasetView, self._connection.call("GET", _path("datasets", dataset_id)).json()
        )

    def datasets(self) -> Iterator[DatasetView]:
        """Yield data sets, newest first."""
        yield from self._listed("/datasets", DatasetView)

    def delete_dataset(self, dataset_id: str) -> DatasetPurge:
        """Purge a data set at once; return the receipt. Idempotent."""
        return _view(
            DatasetPurge, self._connection.call("DELETE", _path("datasets", dataset_id)).json()
        )

    def _ruling(self, job_id: str, verb: str, body: Mapping[str, Any] | None = None) -> JobView:
        return _job(self._connection.call("POST", _path("jobs", job_id, verb), json=body))

    def _nudges(self, job_id: str, after: int) -> Iterator[int]:
        """Yield a seq whenever it may be worth to look at the job: now, and after every event."""
        yield after
        for event in self.stream(job_id, after=after):
            yield event.seq

    def _if_changed(self, job_id: str, etag: str) -> tuple[JobView | None, str]:
        """Return the job if it is not the one of the ETag, and the ETag that it has now."""
        response = self._connection.call(
            "GET", _path("jobs", job_id), headers={"If-None-Match": etag} if etag else {}
        )
        if response.status_code == httpx.codes.NOT_MODIFIED:
            return None, etag
        return _job(response), response.headers["ETag"]

    def _listed(
        self, path: str, schema: type[ViewT], filters: Mapping[str, str] | None = None
    ) -> Iterator[ViewT]:
        params: dict[str, Any] = {"limit": 100, **(filters or {})}
        more = True
        while more:
            page = self._connection.call("GET", path, params=params).json()
            for item in page["data"]:
                params["after"] = item["id"]
                yield _view(schema, item)
            more = page["has_more"]


def _path(*parts: str) -> str:
    return "/" + "/".join(quote(part, safe="") for part in parts)


def _view(schema: type[ViewT], item: object) -> ViewT:
    """Read a view; fields that a newer server may send are ignored."""
    return schema.model_validate(item, extra="ignore")


def _job(response: httpx.Response) -> JobView:
    """Read a job. Its version travels as the ETag, where there is one."""
    version = response.headers.get("ETag", "0").strip('"')
    existing = "Efface-Existing-Job" in response.headers
    return _view(JobView, response.json() | {"version": version, "existing": existing})
