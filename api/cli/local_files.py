"""Local files in a request: the same REQUEST.json serves `efface run` and, after its files were
uploaded, a service.
"""

import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from api.cli import show
from api.client import ApiProblem, Client
from api.packing import Body
from shared.errors import InvalidRequest
from shared.files.checkpoints import find_layout
from shared.files.image_archives import ArchiveLimits
from shared.request_rules.references import LOCAL_DIR, FoundData, LocalData, hub_model, source_of
from shared.request_rules.resolution import check as check_with
from shared.schemas.dataset import DatasetView
from shared.schemas.model import ModelView
from shared.schemas.model_reference import ModelReference
from shared.schemas.request import ErasureRequest
from shared.schemas.spec import LISTS, DataSource, ModelSource

ANY = 2**62
NO_LIMITS = ArchiveLimits(images=ANY, expanded_bytes=ANY, ratio=ANY, pixels=ANY)
"""What a server takes is for the server to say."""


def check(request: ErasureRequest, client: Client) -> None:
    """Check a request as far as its files are here, and as the service tells what its ids stand
    for; nothing is uploaded.

    Raises:
        InvalidRequest: with every error that was found.
    """
    check_with(request, _UploadFinder(client))


def with_ids(body: dict[str, Any], client: Client) -> dict[str, Any]:
    """Upload what a request gives by a local path, each path once, and return the request with ids
    in their place.

    What is no path here is left for the server to judge.
    """

    def dataset(reference: str) -> str:
        path = _local_file(reference)
        return reference if path is None else upload_dataset(client, path).id

    def model(source: str) -> str | None:
        folder = _local_folder(source)
        return None if folder is None else upload_model(client, folder).id

    datasets, models = _Once(dataset), _Once(model)
    changed = body | {"model": _model(body["model"], models)}
    if isinstance(audit := body.get("audit"), dict) and isinstance(audit.get("reference"), dict):
        changed["audit"] = audit | {"reference": _model(audit["reference"], models)}
    data = dict(body.get("data", {}))
    for role, value in data.items():
        if role in LISTS:
            data[role] = [entry | {"dataset": datasets(entry["dataset"])} for entry in value]
        elif value is not None:
            data[role] = datasets(value)
    return changed | ({"data": data} if "data" in body else {})


class _Once:
    """Does something for each reference once."""

    def __init__(self, do: Callable[[str], Any]) -> None:
        self._do, self._done = do, dict[str, Any]()

    def __call__(self, reference: str) -> Any:  # noqa: ANN401 - what is done gives
        if reference not in self._done:
            self._done[reference] = self._do(reference)
        return self._done[reference]


def _model(reference: dict[str, Any], models: _Once) -> dict[str, Any]:
    uploaded = models(str(reference.get("source") or ""))
    return reference if uploaded is None else {"id": uploaded}


def _local_folder(source: str) -> Path | None:
    """Return the folder here that a model's source names, None where it names none."""
    if not source.startswith(LOCAL_DIR):
        return None
    folder = _local_file(source.removeprefix(LOCAL_DIR))
    return folder if folder is not None and folder.is_dir() else None


def _local_file(reference: str) -> Path | None:
    """Return what a reference names here, None where it names nothing."""
    try:
        path = Path(reference).expanduser()
        return path.resolve() if path.exists() else None
    except (OSError, RuntimeError, ValueError):
        return None


class _UploadFinder:
    """Looks at what is here, and asks the service for what is there."""

    def __init__(self, client: Client) -> None:
        self._client, self._local = client, LocalData(NO_LIMITS)

    def model(self, pointer: str, reference: ModelReference) -> ModelSource:
        if reference.id is not None:
            return ModelSource(reference=f"id:{reference.id}", id=reference.id)
        text, pointer = source_of(reference, pointer)
        if not text.startswith(LOCAL_DIR):
            return hub_model(text, pointer)
        folder = _local_folder(text)
        if folder is not None:
            with _named(folder, pointer):
                find_layout(folder)
        return ModelSource(reference=text if folder is None else f"{LOCAL_DIR}{folder}")

    def data(self, pointer: str, name: str, reference: str) -> FoundData:
        path = _local_file(reference)
        if path is not None:
            return self._local.at(path, pointer, name)
        source = DataSource(name=name, uri=reference)
        try:
            return FoundData(
                source,
                self._client.dataset(reference).classes if reference.startswith("ds_") else None,
            )
        except ApiProblem:
            return FoundData(
                source, None
            )  # not there, or not for this key: the server says it when the job is posted


def upload_model(
    client: Client, path: Path, *, name: str | None = None, architecture: str | None = None
) -> ModelView:
    """Upload a checkpoint, or the files of the one model in a folder; see
    `shared.files.checkpoints` for the layouts.

    Raises:
        InvalidRequest: the folder holds no model, or several.
    """
    members: list[Path] = []
    if path.is_dir():
        with _named(path, ""):
            members = find_layout(path).files
    with _packed(path, members) as file, show.upload(file) as advance:
        return client.add_model(
            file, name=name or path.stem, architecture=architecture, advance=advance
        )


def upload_dataset(
    client: Client,
    path: Path,
    *,
    name: str | None = None,
    purge_after_job: bool | None = None,
    skip_invalid: bool = False,
) -> DatasetView:
    """Upload an archive of images, or a folder of what would be packed, such as class folders or
    shards.
    """
    size = Body.of(path).size
    with show.transfer(f"uploading {path.name}", size) as advance:
        return client.add_dataset(
            path,
            name=name,
            purge_after_job=purge_after_job,
            skip_invalid=skip_invalid,
            advance=advance,
        )


@contextmanager
def _named(folder: Path, pointer: str) -> Iterator[None]:
    """Name the folder in what is said of it."""
    try:
        yield
    except InvalidRequest as error:
        raise InvalidRequest.at(pointer, f"{folder.name} {error.errors[0].detail}") from error


@contextmanager
def _packed(path: Path, members: list[Path]) -> Iterator[Path]:
    """Give a file as it is; a folder as a temporary tar of its members.

    Raises:
        InvalidRequest: the folder holds none of what is wanted.
    """
    if not path.is_dir():
        yield path
        return
    if not members:
        raise InvalidRequest.at("", f"there is nothing to upload in {path}")
    with tempfile.TemporaryDirectory(prefix="efface-pack-") as scratch:
        packed = Path(scratch) / f"{path.name}.tar"
        with tarfile.open(packed, "w") as archive:
            for member in members:
                archive.add(
                    member.resolve(), member.relative_to(path)
                )  # what a link leads to, not the link
        yield packed
