"""`POST /jobs`, `efface run` and `efface submit` read one request file alike: the same values, or the same errors."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from api.cli import local_files
from api.client import Client
from services.access import api_keys
from shared.errors import InvalidRequest
from shared.request_rules.request_file import read_request
from shared.settings import Settings
from shared.states import Scope
from tests.support import parts, requests
from tests.support.request_files import SOUND, WRONG, Disk
from tests.support.servers import serving
from worker.resolve import resolved_here

ELSEWHERE = {"no model there", "no data there"}
"""What is not here may be where the server is."""
RESOLVED = ("thresholds", "labels", "sets", "warnings")


@pytest.fixture(scope="module")
def gateway(postgres_url: str, redis_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A server for all these requests, which allows paths where their files are."""
    parts.flush(redis_server)
    root = tmp_path_factory.mktemp("gateway")
    settings = parts.make_settings(postgres_url, redis_server, root)
    settings.path_roots[:] = [tmp_path_factory.getbasetemp()]
    with capture_logs(), parts.emptied_database(settings) as database, serving(settings) as url:
        with database.transaction() as session:
            key = api_keys.create(session, tenant="alice", name="test", scopes=(Scope.ADMIN,))[1]
        with Client(url, key) as client:
            yield client


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Two models in folders."""
    found = []
    for number, name in enumerate(("clip", "gold")):
        folder = tmp_path_factory.mktemp(name)
        (folder / "open_clip_config.json").write_text(json.dumps(requests.SMALL_CLIP))
        requests.small_clip(folder / "open_clip_model.safetensors", number)
        found.append(f"local-dir:{folder}")
    return found[0], found[1]


@pytest.fixture
def disk(tmp_path: Path, models: tuple[str, str]) -> Disk:
    """Where a request's files are."""
    return Disk(tmp_path, *models)


def posted(client: Client, body: dict[str, Any]) -> dict[str, Any]:
    """Return what the gateway resolves, or its errors."""
    response = _connection(client).post("/jobs", params={"validate_only": True}, json=body)
    answer = response.json()
    if response.status_code == 422:
        return {"errors": sorted((e["pointer"], e["detail"]) for e in answer["errors"])}
    assert response.status_code == 200, answer
    return {name: answer[name] for name in RESOLVED} | {"request": answer["request"]}


def run_here(body: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return what `efface run` resolves, or its errors."""
    file = folder / "request.json"
    file.write_text(json.dumps(body), encoding="utf-8")
    try:
        request = read_request(file)[1]
        resolved = resolved_here(request, Settings())
    except InvalidRequest as error:
        return {"errors": sorted((e.pointer, e.detail) for e in error.errors)}
    found = {
        "thresholds": resolved.thresholds.model_dump(mode="json"),
        "labels": list(resolved.labels),
        "sets": [entry.model_dump(mode="json") for entry in resolved.sets],
        "warnings": [warning.model_dump(mode="json") for warning in resolved.warnings],
    }
    return found | {"request": request.model_dump(mode="json")}


def _connection(client: Client) -> httpx.Client:
    return client._connection._http  # the tests' own errors are wanted as they come


@pytest.mark.parametrize("name", SOUND)
def test_sound_requests_come_to_the_same(gateway: Client, disk: Disk, name: str) -> None:
    body = SOUND[name](disk)

    here = run_here(body, disk.folder)

    assert "errors" not in here, here["errors"]
    assert posted(gateway, body) == here
    local_files.check(read_request(disk.folder / "request.json")[1], gateway)
    uploaded = posted(gateway, local_files.with_ids(body, gateway))
    assert {part: uploaded[part] for part in RESOLVED} == {part: here[part] for part in RESOLVED}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_requests_get_the_same_errors(gateway: Client, disk: Disk, name: str) -> None:
    body = WRONG[name](disk)

    here = run_here(body, disk.folder)

    assert here["errors"]
    assert posted(gateway, body) == here


@pytest.mark.parametrize("name", sorted(WRONG.keys() - ELSEWHERE))
def test_what_is_wrong_with_local_files_is_said_before_they_are_uploaded(
    gateway: Client, disk: Disk, name: str
) -> None:
    here = run_here(WRONG[name](disk), disk.folder)
    with pytest.raises(InvalidRequest) as caught:
        local_files.check(read_request(disk.folder / "request.json")[1], gateway)
    assert sorted((e.pointer, e.detail) for e in caught.value.errors) == here["errors"]


def test_what_is_wrong_is_pointed_at(gateway: Client, disk: Disk) -> None:
    pointers = {
        "a class that is no label": "/target/class",
        "a subgroup of no label": "/target/class",
        "labels twice": "/target/labels",
        "labels that differ too late": "/target/labels",
        "a synonym that is a label": "/target/synonyms",
        "synonyms of another": "/target/synonyms",
        "sets of one name": "/data/evaluation/1/name",
        "an empty id": "/external_id",
        "a folder that is nearly the class": "/data/evaluation/0/dataset",
    }
    for number, (name, pointer) in enumerate(pointers.items()):
        own = Disk(disk.folder / str(number), disk.model, disk.other_model)
        own.folder.mkdir()
        assert [found for found, _ in posted(gateway, WRONG[name](own))["errors"]] == [pointer], name


@pytest.mark.parametrize(
    "text",
    [
        b'{"seed": 1, "seed": 2}',
        b'{"seed": NaN}',
        b'{"seed": 1e999}',
        b"{",
        b"\xff",
        b'{"external_id": "\\ud800"}',
        b"[" * 99,
    ],
    ids=["twins", "NaN", "too large", "cut off", "no UTF-8", "half a pair", "deep"],
)
def test_json_is_read_as_strictly(gateway: Client, tmp_path: Path, text: bytes) -> None:
    (tmp_path / "request.json").write_bytes(text)
    answer = _connection(gateway).post("/jobs", content=text, headers={"Content-Type": "application/json"})
    with pytest.raises(InvalidRequest) as caught:
        read_request(tmp_path / "request.json")
    said = [
        re.sub(r"^.* is not acceptable JSON", "the body is not acceptable JSON", e.detail) for e in caught.value.errors
    ]
    assert said == [error["detail"] for error in answer.json()["errors"]]


def test_models_and_sets_that_come_several_times_are_uploaded_once(gateway: Client, disk: Disk) -> None:
    images = disk.images("cat", name="earlier")
    body = disk.measured("horse", "dog", audit={"reference": {"source": disk.other_model}})
    body["data"]["earlier"] = [{"name": "one", "dataset": images}, {"name": "two", "dataset": images}]
    before = (len(list(gateway.models())), len(list(gateway.datasets())))

    sent = local_files.with_ids(body, gateway)

    assert (len(list(gateway.models())), len(list(gateway.datasets()))) == (before[0] + 2, before[1] + 2)
    assert sent["data"]["earlier"][0]["dataset"] == sent["data"]["earlier"][1]["dataset"]
    assert sent["audit"]["reference"]["id"] != sent["model"]["id"]
    assert "errors" not in posted(gateway, sent)
