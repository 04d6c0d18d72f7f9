"""Local files in a request: the same REQUEST.json serves `efface run` and, after its files were uploaded, a service."""

import json
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from api.cli import show
from api.client import Client
from api.packing import Body
from api.strict_json import loads
from shared.errors import InvalidRequest
from shared.schemas.dataset import DatasetView
from shared.schemas.model import ModelView
from shared.schemas.request import ErasureRequest
from shared.schemas.wording import invalid_request

LOCAL_DIR = "local-dir:"
MODEL_FILES = ("open_clip_config.json", "open_clip_model.safetensors", "open_clip_pytorch_model.bin")


def read_request(path: Path) -> dict[str, Any]:
    """Read a REQUEST.json, and check it before a byte is uploaded.

    Raises:
        InvalidRequest: it is not JSON, or fields of it are wrong.
    """
    try:
        body = loads(path.read_bytes())
    except json.JSONDecodeError as error:
        raise InvalidRequest.at("", f"{path} is not acceptable JSON: {error.msg}") from error
    try:
        ErasureRequest.model_validate(body)
    except ValidationError as error:
        raise invalid_request(error, body) from error
    return cast(dict[str, Any], body)  # an erasure request is an object


def with_ids(body: dict[str, Any], client: Client) -> dict[str, Any]:
    """Upload what a request gives by a local path, each path once, and return the request with ids in their place.

    What is no path here is left for the server to judge.
    """
    uploaded: dict[str, str] = {}

    def identified(reference: str) -> str:
        if reference not in uploaded:
            path = Path(reference).expanduser()
            uploaded[reference] = upload_dataset(client, path).id if path.exists() else reference
        return uploaded[reference]

    body = dict(body)
    folder = Path(str(body["model"].get("source", "")).removeprefix(LOCAL_DIR)).expanduser()
    if str(body["model"].get("source", "")).startswith(LOCAL_DIR) and folder.is_dir():
        body["model"] = {"id": upload_model(client, folder).id}
    data = dict(body.get("data", {}))
    for role, value in data.items():
        if role == "evaluation":
            data[role] = [entry | {"dataset": identified(entry["dataset"])} for entry in value]
        elif value is not None:
            data[role] = identified(value)
    return body | {"data": data}


def upload_model(client: Client, path: Path, *, name: str | None = None, architecture: str | None = None) -> ModelView:
    """Upload a checkpoint, or the files of a local-dir folder."""
    members = [path / file for file in MODEL_FILES if (path / file).exists()]
    with _packed(path, members) as file, show.upload(file) as advance:
        return client.add_model(file, name=name or path.stem, architecture=architecture, advance=advance)


def upload_dataset(
    client: Client,
    path: Path,
    *,
    name: str | None = None,
    purge_after_job: bool | None = None,
    skip_invalid: bool = False,
) -> DatasetView:
    """Upload an archive of images, or a folder of what would be packed, such as class folders or shards."""
    size = Body.of(path).size
    with show.transfer(f"uploading {path.name}", size) as advance:
        return client.add_dataset(
            path, name=name, purge_after_job=purge_after_job, skip_invalid=skip_invalid, advance=advance
        )


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
                archive.add(member.resolve(), member.relative_to(path))  # what a link leads to, not the link
        yield packed
