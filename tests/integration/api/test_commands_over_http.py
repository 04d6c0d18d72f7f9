"""The commands, as processes, against a real server."""

import json
import os
import subprocess
import sys
import threading

import pytest

from shared.states import Stage
from tests.integration.api.conftest import PAGE
from tests.support.image_sets import ACCEPTED, unpacked


@pytest.fixture
def efface(server, settings, make_key):
    """Runs the command line with the server's address and a key."""
    variables = {
        "EFFACE_URL": server,
        "EFFACE_API_KEY": make_key("alice"),
        "EFFACE_DATABASE_URL": settings.database_url.get_secret_value(),
    }

    def run(*arguments, **changes):
        command = [sys.executable, "-m", "api.cli", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, env=os.environ | variables | changes, timeout=60)

    return run


@pytest.fixture
def request_file(request_body, tmp_path):
    """A request on disk whose evaluation data is a folder beside it: images enough for every default threshold."""
    for name in ("horse", "cow"):
        (tmp_path / "images" / name).mkdir(parents=True)
        from PIL import Image

        for number in range(16):
            Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / "images" / name / f"{number}.png")
    request_body["data"] = {"evaluation": [{"name": "mine", "dataset": str(tmp_path / "images")}]}
    path = tmp_path / "request.json"
    path.write_text(json.dumps(request_body))
    return path


def test_submit_uploads_local_data_and_prints_the_id_alone(efface, alice, request_file):
    done = efface("submit", request_file)

    assert (done.returncode, done.stderr) == (0, "")
    job = alice.get(f"/jobs/{done.stdout.strip()}").json()
    dataset = alice.get("/datasets").json()["data"][0]
    assert job["request"]["data"]["evaluation"] == [{"name": "mine", "dataset": dataset["id"]}]
    assert dataset["classes"] == {"cow": 16, "horse": 16}


@pytest.mark.parametrize(("state", "code"), [("succeeded", 0), ("thresholds_not_met", 3), ("cancelled", 1)])
def test_submit_and_wait_exits_as_the_job_ended(efface, alice, make_job, request_file, state, code):
    def work():
        while not (found := alice.get("/jobs").json()["data"]):
            pass
        job_id = found[0]["id"]
        if state == "cancelled":
            alice.post(f"/jobs/{job_id}/cancel")
            return
        make_job.claim(job_id)
        make_job.enter(job_id, Stage.FORGETTING)
        make_job.finish(job_id, passed=state == "succeeded")

    worker = threading.Thread(target=work)
    worker.start()
    done = efface("submit", request_file, "--wait")
    worker.join(20)

    assert done.returncode == code, done.stderr
    assert done.stdout.startswith("job_")
    assert "Traceback" not in done.stderr


def test_what_can_be_known_here_is_refused_before_anything_is_uploaded(efface, alice, request_file):
    body = json.loads(request_file.read_text())
    body["target"]["labels"] = ["horse", "cow", "COW"]
    request_file.write_text(json.dumps(body))
    twice = efface("submit", request_file)
    body["target"]["labels"] = ["horses", "cow"]
    body["target"]["class"] = "horses"
    request_file.write_text(json.dumps(body))
    near = efface("submit", request_file)

    assert (twice.returncode, near.returncode) == (2, 2)
    assert "/target/labels: names 'COW', 'cow'" in twice.stderr
    assert "/data/evaluation/0/dataset: holds 'horse', which is nearly 'horses'" in near.stderr
    assert alice.get("/datasets").json()["data"] == []


def test_what_was_read_otherwise_than_written_is_said(efface, request_file):
    body = json.loads(request_file.read_text())
    body["target"] = {"type": "class", "class": "HORSE", "labels": ["Horse", "Cow"]}
    request_file.write_text(json.dumps(body))

    done = efface("submit", request_file)

    assert done.returncode == 0
    assert done.stdout.startswith("job_")
    assert "warning: /data/evaluation/0/dataset: takes 'cow' as 'Cow', 'horse' as 'Horse'" in done.stderr


def test_a_request_that_the_server_refuses_exits_2(efface, request_body, tmp_path):
    path = tmp_path / "request.json"
    path.write_text(json.dumps(request_body | {"model": {"id": "mdl_missing"}}))

    done = efface("submit", path)

    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no model 'mdl_missing'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_looking_at_jobs(efface, make_job):
    job_id = make_job.succeeded()

    assert job_id in efface("jobs").stdout
    assert job_id not in efface("jobs", "--state", "queued").stdout
    assert json.loads(efface("job", job_id).stdout)["state"] == "succeeded"
    assert json.loads(efface("report", job_id).stdout)["verdict"] == "passed"
    assert efface("report", job_id, "--html").stdout == PAGE.decode()
    assert efface("job", "job_missing").returncode == 1
    assert efface("jobs", "--state", "done").returncode == 2


def test_weights_are_written_as_a_local_dir(efface, make_job, tmp_path):
    done = efface("weights", make_job.succeeded(), "--out", tmp_path / "model")

    assert (done.returncode, done.stdout.strip()) == (0, str(tmp_path / "model"))
    assert {path.name for path in (tmp_path / "model").iterdir()} == {
        "open_clip_config.json",
        "open_clip_model.safetensors",
    }


def test_weights_that_missed_a_threshold_are_refused_with_the_reason(efface, make_job, tmp_path):
    done = efface("weights", make_job.missed(), "--out", tmp_path / "model")

    assert done.returncode == 1
    assert "thresholds_not_met" in done.stderr


def test_cancel(efface, make_job):
    job_id = make_job.queued()

    assert [efface("cancel", job_id).stdout.strip() for _ in range(2)] == [f"{job_id} is cancelled"] * 2


def test_data_sets_and_models_are_added_and_listed(efface, archive, tmp_path):
    dataset_id = efface("datasets", "add", archive, "--name", "farm").stdout.strip()
    refused = efface("models", "add", tmp_path / "farm.zip")

    assert dataset_id.startswith("ds_")
    assert dataset_id in efface("datasets", "list").stdout
    assert efface("models", "list").returncode == 0
    assert refused.returncode == 2
    assert "open_clip_config.json" in refused.stderr


def test_folders_are_packed_on_the_way(efface, alice, tmp_path):
    for kind in ("class folders", "shards in a tar, with names"):
        folder = unpacked(ACCEPTED[kind][0](), tmp_path / kind.replace(" ", "-"))
        (folder / ".cache").mkdir()
        (folder / ".cache" / "x").write_bytes(b"x")
        added = efface("datasets", "add", folder)
        dataset = alice.get(f"/datasets/{added.stdout.strip()}").json()
        assert dataset["classes"] == ACCEPTED[kind][2]
        assert dataset["left_out"] == {}
        assert "1 classes have one image" in added.stderr
        again = efface("datasets", "add", folder)
        assert alice.get(f"/datasets/{again.stdout.strip()}").json()["digest"] == dataset["digest"]
    (folder / "2.tar").write_bytes(b"none")
    refused = efface("datasets", "add", folder)
    assert refused.returncode == 2
    assert "'2.tar' cannot be read" in refused.stderr
    assert efface("datasets", "add", tmp_path / "class-folders", "--skip-invalid").returncode == 0


def test_keys_are_made_listed_and_revoked(efface):
    made = efface("keys", "create", "--name", "reader", "--tenant", "carol", "--scope", "jobs:read")
    key, key_id = made.stdout.strip(), made.stderr.split()[0]

    assert efface("jobs", EFFACE_API_KEY=key).returncode == 0
    listed = efface("keys", "list").stdout
    assert key_id in listed
    assert "carol" in listed
    assert key not in listed
    assert efface("keys", "revoke", key_id).returncode == 0
    assert efface("jobs", EFFACE_API_KEY=key).returncode == 1
    assert efface("keys", "create", "--name", "x", "--scope", "everything").returncode == 2
    assert efface("keys", "revoke", "key_missing").returncode == 1


def test_a_key_is_rotated_and_ends(efface):
    made = efface("keys", "create", "--name", "reader", "--expires-days", "30")
    old, key_id = made.stdout.strip(), made.stderr.split()[0]
    rotated = efface("keys", "rotate", key_id, "--grace-hours", "1")
    new = rotated.stdout.strip()

    assert (rotated.returncode, key_id in rotated.stderr) == (0, True)
    assert [efface("jobs", EFFACE_API_KEY=key).returncode for key in (old, new)] == [0, 0]
    assert efface("keys", "rotate", key_id, "--grace-hours", "0").returncode == 0
    assert [efface("jobs", EFFACE_API_KEY=key).returncode for key in (old, new)] == [1, 1]
    for wrong, code in [(("rotate", "key_missing"), 1), (("create", "--name", "x", "--expires-days", "0"), 2)]:
        refused = efface("keys", *wrong)
        assert (refused.returncode, "Traceback" in refused.stderr) == (code, False)
        assert len(refused.stderr.strip().splitlines()) == 1


def test_migrate_twice_is_no_error(efface):
    assert [efface("migrate").returncode for _ in range(2)] == [0, 0]
