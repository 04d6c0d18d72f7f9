"""Data sets and models, uploaded as a body and as a form."""

import json
import socket
import struct
import tarfile
import tempfile
import time
from pathlib import Path

import pytest

from api.examples import MODEL_REGISTRATION
from tests.support import requests
from tests.support.hostile.archives import zipped
from tests.support.image_sets import ACCEPTED
from tests.support.requests import png


def safetensors(path: Path) -> Path:
    """Write a sound file of one number."""
    header = json.dumps({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0\0\0\0")
    return path


@pytest.fixture
def model_archive(tmp_path):
    """A tar of a local-dir folder."""
    (tmp_path / "open_clip_config.json").write_text(json.dumps(requests.SMALL_CLIP))
    with tarfile.open(tmp_path / "model.tar", "w") as archive:
        for path in (tmp_path / "open_clip_config.json", requests.small_clip(tmp_path / "open_clip_model.safetensors")):
            archive.add(path, path.name)
    return tmp_path / "model.tar"


@pytest.fixture(autouse=True)
def temporary_folder(tmp_path, monkeypatch):
    """One of the test's own: neighbours may upload at the same time."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))


def left_over():
    return list(Path(tempfile.gettempdir()).glob("efface-upload-*"))


def pointers(response):
    assert response.status_code == 422, response.text
    return [error["pointer"] for error in response.json()["errors"]]


def test_a_data_set_as_the_body(alice, archive, storage):
    response = alice.post("/datasets", params={"name": "farm"}, content=archive.read_bytes())

    assert response.status_code == 201
    dataset = response.json()
    assert (dataset["name"], dataset["images"], dataset["classes"]) == ("farm", 4, {"cow": 2, "horse": 2})
    assert alice.get(f"/datasets/{dataset['id']}").json() == dataset
    assert alice.get("/datasets").json()["data"] == [dataset]
    (stored,) = storage.list("tenants")
    assert b"horse/1.png" in archive.read_bytes()
    assert b"horse/1.png" not in storage.get(stored.key)
    assert left_over() == []


def test_what_was_understood_of_a_data_set(alice):
    members = [("pets/train/cat/1.png", png(1)), ("pets/val/Cat/2.png", png(2)), ("pets/train/cat/._1.png", b"x")]
    dataset = alice.post("/datasets?name=pets", content=zipped(members)).json()

    assert dataset["layout"] == "split_folders"
    assert dataset["classes"] == {"Cat": 1, "cat": 1}
    assert (dataset["left_out"], dataset["skipped"]) == ({"hidden": 1}, 0)
    assert any("'train', 'val' are parts of one set" in warning for warning in dataset["warnings"])
    assert any("'Cat', 'cat' may be one" in warning for warning in dataset["warnings"])
    assert alice.get(f"/datasets/{dataset['id']}").json() == dataset


def test_bad_members_are_named_together_or_left_out(alice):
    content = zipped([("cat/1.png", png(1)), ("cat/2.jpg", b"<html>"), ("cat/3.jpg", b"")])
    refused = alice.post("/datasets?name=pets", content=content)
    dataset = alice.post("/datasets?name=pets&skip_invalid=true", content=content).json()

    assert pointers(refused) == ["/file", "/file"]
    assert [error["detail"].split(";")[0] for error in refused.json()["errors"]] == [
        "member 'cat/2.jpg' is HTML, not an image that can be decoded",
        "member 'cat/3.jpg' is empty",
    ]
    assert (dataset["images"], dataset["skipped"]) == (1, 2)
    assert pointers(alice.post("/datasets?name=x&skip_invalid=yes", content=content)) == ["/skip_invalid"]


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("UTF-8 that is not declared", "zip"),
        ("backslashes of MS-DOS", "zip"),
        ("label.txt", "webdataset"),
        ("shards in a zip", "zip"),
        ("metadata.csv", "zip"),
        ("Parquet", "parquet"),
    ],
)
def test_sets_as_people_have_them(alice, name, form):
    build, layout, classes = ACCEPTED[name]
    dataset = alice.post("/datasets?name=own", content=build()).json()
    assert (dataset["format"], dataset["layout"], dataset["classes"]) == (form, layout, classes)


def test_a_data_set_as_a_form(alice, archive):
    with archive.open("rb") as file:
        dataset = alice.post("/datasets", files={"file": file}, data={"name": "from a form"}).json()

    assert (dataset["name"], dataset["images"]) == ("from a form", 4)


def test_without_a_name_the_file_gives_it(alice, archive):
    with archive.open("rb") as file:
        assert alice.post("/datasets", files={"file": file}).json()["name"] == "farm.zip"
    assert alice.post("/datasets?filename=a.zip", content=archive.read_bytes()).json()["name"] == "a.zip"


def test_a_body_in_chunks_of_unknown_length(alice, archive):
    content = archive.read_bytes()

    response = alice.post("/datasets?name=x", content=(content[i : i + 100] for i in range(0, len(content), 100)))

    assert response.status_code == 201


def test_what_is_no_data_set_is_refused_and_not_kept(alice, storage):
    assert pointers(alice.post("/datasets?name=x", content=b"no archive")) == ["/file"]
    assert pointers(alice.post("/datasets?name=x", content=b"")) == ["/file"]
    assert pointers(alice.post("/datasets", content=b"no name")) == ["/name"]
    assert pointers(alice.post("/datasets?name=%0a", content=b"control character")) == ["/name"]
    assert pointers(alice.post("/datasets", files={"other": b"x"})) == ["/file"]
    assert pointers(alice.post("/datasets", data={"file": "text"}, files={"x": b""})) == ["/file"]
    assert storage.list("tenants") == []
    assert left_over() == []


def test_a_broken_form_is_a_client_error(alice):
    response = alice.post("/datasets", content=b"--x\r\nrubbish", headers={"Content-Type": "multipart/form-data"})

    assert response.status_code == 400
    assert response.headers["Content-Type"] == "application/problem+json"


def test_an_upload_that_breaks_off_leaves_nothing(server, make_key, logs, storage):
    host, port = server.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        head = f"POST /datasets?name=x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {make_key()}\r\n"
        connection.sendall(f"{head}Content-Length: 1000000\r\n\r\n".encode() + b"x" * 100_000)
        while not left_over():
            time.sleep(0.01)

    while not (lines := [line for line in logs if line["event"] == "http.request"]):
        time.sleep(0.01)

    assert lines[0]["status"] == 499
    assert left_over() == []
    assert storage.list("tenants") == []


@pytest.fixture
def limited(serve, settings, make_key):
    """A server that takes 100,000 bytes."""
    import httpx

    url = serve(settings.model_copy(update={"max_upload_bytes": 100_000}))
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {make_key()}"}, timeout=20) as client:
        yield client


@pytest.mark.parametrize("path", ["/datasets", "/models"])
def test_an_upload_over_the_limit_is_413(limited, path):
    body = b"x" * 100_001
    answers = [
        limited.post(path, content=body),
        limited.post(path, content=(body[i : i + 1000] for i in range(0, len(body), 1000))),
        limited.post(path, files={"file": body}),
    ]

    assert [answer.status_code for answer in answers] == [413, 413, 413]
    assert all(answer.json()["code"] == "too_large" for answer in answers)
    assert left_over() == []


def test_an_upload_at_the_limit_is_taken_as_far_as_it_goes(limited):
    assert pointers(limited.post("/datasets?name=x", content=b"x" * 100_000)) == ["/file"]


def test_a_model_as_an_archive(alice, model_archive, storage):
    response = alice.post("/models", params={"name": "tiny"}, content=model_archive.read_bytes())

    assert response.status_code == 201, response.text
    model = response.json()
    assert (model["name"], model["parent"]) == ("tiny", None)
    assert alice.get(f"/models/{model['id']}").json() == model
    assert alice.get("/models").json()["data"] == [model]
    assert [Path(o.key).name for o in storage.list("tenants")] == [
        "open_clip_config.json",
        "open_clip_model.safetensors",
    ]


def test_a_bare_checkpoint_needs_its_architecture(alice, tmp_path):
    content = safetensors(tmp_path / "x.safetensors").read_bytes()
    params = {"name": "x", "filename": "x.safetensors"}

    assert pointers(alice.post("/models", params=params, content=content)) == ["/architecture"]
    added = alice.post("/models", params=params | {"architecture": requests.UNKNOWN_ARCHITECTURE}, content=content)
    assert (added.status_code, added.json()["architecture"]) == (201, requests.UNKNOWN_ARCHITECTURE)


def test_a_bare_checkpoint_as_a_form(alice, tmp_path):
    with safetensors(tmp_path / "x.safetensors").open("rb") as file:
        added = alice.post("/models", files={"file": file}, data={"architecture": requests.UNKNOWN_ARCHITECTURE})

    assert (added.status_code, added.json()["name"]) == (201, "x.safetensors")


def test_a_model_by_reference(serve, settings, make_key):
    import httpx

    url = serve(settings.model_copy(update={"allow_hub": True}))
    added = httpx.post(f"{url}/models", headers={"Authorization": f"Bearer {make_key()}"}, json=MODEL_REGISTRATION)

    assert added.status_code == 201, added.text
    assert added.json()["reference"] == "open_clip:ViT-B-32/openai"


def test_a_reference_that_the_operator_does_not_allow(alice):
    for model in ({"source": "hf-hub:a/b"}, {"source": "local-dir:/etc"}, {"architecture": "a", "pretrained": "b"}):
        assert pointers(alice.post("/models", json={"name": "x", "model": model}))[0].startswith("/model")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [(b"{}", "/name"), (b"{", ""), (b'{"name": "x", "model": {"id": "mdl_x"}}', "/model/id"), (b"[]", ""),
     (b'{"name": "x", "model": {"sauce": "y"}}', "/model/sauce")],
)  # fmt: skip
def test_a_wrong_registration_names_the_field(alice, body, pointer):
    assert pointer in pointers(alice.post("/models", content=body, headers={"Content-Type": "application/json"}))


def test_the_client_uploads_and_tells_how_far_it_is(alice_client, archive, model_archive):
    sent = []

    dataset = alice_client.add_dataset(archive, advance=sent.append)
    model = alice_client.add_model(model_archive, name="tiny")

    assert sum(sent) == archive.stat().st_size
    assert dataset.name == "farm"
    assert alice_client.dataset(dataset.id) == dataset
    assert list(alice_client.datasets()) == [dataset]
    assert alice_client.model(model.id) == model
    assert list(alice_client.models()) == [model]
