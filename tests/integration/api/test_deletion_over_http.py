"""DELETE of models and data sets, over HTTP and by command."""

import json
import os
import subprocess
import sys

import pytest

from api.cli.local_files import upload_model
from shared.states import Scope
from tests.support import requests
from tests.support.problems import assert_problem


@pytest.fixture
def checkpoint() -> bytes:
    """A safetensors file with one tensor."""
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(4)


@pytest.fixture
def model(alice, checkpoint) -> str:
    params = {"name": "clip", "filename": "clip.safetensors", "architecture": "tiny-of-the-tests"}
    return alice.post("/models", content=checkpoint, params=params).json()["id"]


@pytest.fixture
def dataset(alice, archive) -> str:
    return alice.post("/datasets", content=archive.read_bytes(), params={"name": "farm"}).json()["id"]


def erasure(model: str, **data: object) -> dict[str, object]:
    target = {"type": "class", "class": "horse", "labels": ["horse", "cow"]}
    return {"model": {"id": model}, "target": target, "method": {"name": "synthetic"}, "data": data}


def test_a_model_is_deleted_and_stays_deleted(alice, bob, model, storage):
    assert_problem(bob.delete(f"/models/{model}"), 404, "not_found")
    first = alice.delete(f"/models/{model}")

    assert first.status_code == 200, first.text
    receipt = first.json()
    assert (receipt["object"], receipt["model"], len(receipt["objects"])) == ("model_purge", model, 2)
    assert alice.delete(f"/models/{model}").json() | {"listing_empty_at": ""} == receipt | {"listing_empty_at": ""}
    assert_problem(alice.get(f"/models/{model}"), 404, "not_found")
    assert alice.get("/models").json()["data"] == []
    assert [o.key for o in storage.list("tenants") if model in o.key] == []
    refused = assert_problem(alice.post("/jobs", json=erasure(model)), 422, "invalid_request")
    assert refused["errors"][0]["pointer"] == "/model/id"


def test_what_a_job_needs_is_a_conflict_that_names_the_job(alice, model, dataset):
    data = {"evaluation": [{"name": "farm", "dataset": dataset}]}
    job = alice.post("/jobs", json=erasure(model, **data)).json()["id"]
    for path in (f"/models/{model}", f"/datasets/{dataset}"):
        assert job in assert_problem(alice.delete(path), 409, "conflict")["detail"]
    alice.post(f"/jobs/{job}/cancel")
    assert [alice.delete(path).status_code for path in (f"/models/{model}", f"/datasets/{dataset}")] == [200, 200]
    assert alice.get(f"/jobs/{job}").json()["request"]["model"]["id"] == model  # it still reads
    (gone,) = alice.get(f"/jobs/{job}/purge-receipt").json()["datasets"]
    assert (gone["state"], gone["reason"]) == ("purged", "deleted")


def test_a_data_set_is_purged_at_once_and_twice_is_once(alice, bob, dataset, storage):
    assert_problem(bob.delete(f"/datasets/{dataset}"), 404, "not_found")
    receipt = alice.delete(f"/datasets/{dataset}").json()

    assert (receipt["state"], receipt["reason"], receipt["dataset"]) == ("purged", "deleted", dataset)
    assert len(receipt["objects"]) == 1 and receipt["key_destroyed_at"] <= receipt["listing_empty_at"]
    assert alice.delete(f"/datasets/{dataset}").json() == receipt
    assert_problem(bob.delete(f"/datasets/{dataset}"), 404, "not_found")
    assert_problem(alice.get(f"/datasets/{dataset}"), 404, "not_found")
    assert [o.key for o in storage.list("tenants") if dataset in o.key] == []


def test_deleting_needs_the_scope_to_write(connect, model, dataset):
    reader = connect("alice", (Scope.MODELS_READ, Scope.DATASETS_READ, Scope.JOBS_WRITE))
    for path in (f"/models/{model}", f"/datasets/{dataset}"):
        assert_problem(reader.delete(path), 403, "forbidden")


def test_weights_of_a_deleted_model_are_gone_and_say_why(alice, make_job):
    job = make_job.succeeded()
    model = alice.get(f"/jobs/{job}").json()["result_model"]
    assert alice.get(f"/jobs/{job}/weights").status_code == 200
    before = alice.get(f"/jobs/{job}")
    assert alice.delete(f"/models/{model}").status_code == 200

    assert "its model was deleted" in assert_problem(alice.get(f"/jobs/{job}/weights"), 410, "gone")["detail"]
    assert alice.get(f"/jobs/{job}/report").status_code == 200
    after = alice.get(f"/jobs/{job}", headers={"If-None-Match": before.headers["ETag"]})
    assert after.status_code == 200
    assert [r["what"] for r in after.json()["removals"]] == ["weights"]
    assert len(alice.get(f"/models/{model}/fetches").json()["data"]) == 1


def test_the_commands(server, make_key, model, dataset, alice, make_job):
    variables = {"EFFACE_URL": server, "EFFACE_API_KEY": make_key("alice")}

    def efface(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "api.cli", *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=os.environ | variables, timeout=60)

    job = alice.post("/jobs", json=erasure(model)).json()["id"]
    refused = efface("models", "rm", model)
    assert (refused.returncode, refused.stdout) == (1, "") and job in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    alice.post(f"/jobs/{job}/cancel")
    done = efface("models", "rm", model)
    assert (done.returncode, done.stderr) == (0, "") and "2 objects" in done.stdout
    done = efface("datasets", "rm", dataset)
    assert (done.returncode, done.stderr) == (0, "") and "1 objects" in done.stdout
    assert efface("datasets", "rm", "ds_nobody").returncode == 1


def test_the_tokenizer_of_a_model_comes_and_goes_with_it(alice, alice_client, make_job, storage, tmp_path):
    folder = tmp_path / "clip"
    folder.mkdir()
    small = requests.SMALL_CLIP["model_cfg"]
    config = {"model_cfg": small | {"text_cfg": small["text_cfg"] | {"hf_tokenizer_name": "owner/name"}}}
    checkpoint = requests.small_clip(tmp_path / "weights.safetensors").read_bytes()
    sent = {"tokenizer.json": b"{}", "vocab.txt": b"a", "open_clip_config.json": json.dumps(config).encode()}
    for name, content in (sent | {"open_clip_model.safetensors": checkpoint, "notes.md": b"mine"}).items():
        (folder / name).write_bytes(content)
    model = upload_model(alice_client, folder)
    stored = [o.key.rpartition("/")[2] for o in storage.list("tenants") if model.id in o.key]
    assert stored == sorted([*sent, "open_clip_model.safetensors"])

    job = make_job.running()
    make_job.finish(job, passed=True, also={f"model/{name}": content for name, content in sent.items()})
    fetched = alice_client.weights(job, tmp_path / "fetched")
    assert {p.name for p in fetched.iterdir()} == {*sent, "open_clip_model.safetensors"}
    assert (fetched / "tokenizer.json").read_bytes() == b"{}"
    assert len(alice.get(f"/models/{alice.get(f'/jobs/{job}').json()['result_model']}/fetches").json()["data"]) == 1


def test_an_archive_can_be_sent_again_after_its_deletion(alice, dataset, archive):
    alice.delete(f"/datasets/{dataset}")
    again = alice.post("/datasets", content=archive.read_bytes(), params={"name": "farm"})
    assert again.status_code == 201 and again.json()["id"] != dataset
