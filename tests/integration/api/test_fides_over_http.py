"""The connector for Fides: what Fides makes of its files, and what it then gets from the service.

Fides pins hundreds of packages, so it lives in an environment of its own: `make fides-check` makes one and runs this
file with EFFACE_FIDES_PYTHON. Without it, the tests that need Fides are skipped.
"""

import json
import os
import subprocess
from ipaddress import ip_network
from pathlib import Path
from zipfile import ZipFile

import httpx
import pytest
from sqlalchemy import text

from integrations.fides.pack import FILES, FOLDER, pack
from services.subject_requests.fides import CALLBACK_PATH
from tests.support.fleet import wait_until
from tests.support.problems import assert_problem
from tests.support.receiver import receiving

JOBS = "/integrations/fides/jobs"
PYTHON = os.environ.get("EFFACE_FIDES_PYTHON")
TOKEN = "eyJhbGciOiJkaXIi.token"
needs_fides = pytest.mark.skipif(
    PYTHON is None, reason="ethyca-fides is not here; 'make fides-check' makes an environment with it and runs this"
)


@pytest.fixture
def body(request_body):
    """What is the same for every person."""
    return {"model": request_body["model"], "labels": ["horse", "cow"], "method": {"name": "synthetic"}}


@pytest.fixture
def receiver(settings):
    """A Fides on loopback, which the operator allows."""
    settings.webhook_allow_networks.append(ip_network("127.0.0.0/8"))
    with receiving() as found:
        settings.fides_url = found.url.removesuffix("/hook")
        yield found


def sent(client: httpx.Client, body, **headers: str) -> httpx.Response:
    parameters = {"class": "horse", "privacy_request": "pri_1", "received_at": "2026-11-02T09:00:00+00:00"}
    return client.post(JOBS, json=body, params=parameters, headers={k.replace("_", "-"): v for k, v in headers.items()})


def test_a_time_that_is_still_to_come_is_named(alice, request_body):
    parameters = {"class": "horse", "privacy_request": "pri_1", "received_at": "2030-01-01T00:00:00Z"}
    body = {"model": request_body["model"], "labels": ["horse", "cow"], "method": request_body["method"]}
    problem = assert_problem(alice.post(JOBS, json=body, params=parameters), 422, "invalid_request")

    assert problem["errors"][0]["parameter"] == "received_at"
    assert "lies in the future" in problem["detail"]


def from_fides(zip_file: Path, *, job: str = "job_x", class_: str = "horse", responses=()) -> dict:
    """Return what Fides makes of a zip: the requests that it would send, and how it reads these responses."""
    values = {
        "custom_privacy_request_fields": {"efface_class": class_},
        "privacy_request_id": "pri_7c9b",
        "privacy_request": {"requested_at": "2026-11-02T09:00:00+00:00"},
        "model": "mdl_alice",
        "labels": '["horse", "cow"]',
        "method": "synthetic",
        "reply_to": CALLBACK_PATH,
        "reply_to_token": TOKEN,
    }
    given = [
        {"status": response.status_code, "type": response.headers["content-type"], "body": response.text}
        for response in responses
    ]
    command = [str(PYTHON), str(FOLDER / "check.py"), str(zip_file)]
    asked = json.dumps({"values": values, "job": job, "responses": given})
    done = subprocess.run(command, input=asked, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


def perform(client: httpx.Client, request: dict) -> httpx.Response:
    """Send a request that Fides has built."""
    return client.request(
        request["method"], request["path"], params=request["query_params"],
        headers=request["headers"], content=request["body"],
    )  # fmt: skip


# What Fides makes of the files


@needs_fides
def test_fides_takes_the_zip_and_the_service_what_fides_sends(alice, make_job, tmp_path):
    zip_file = pack(tmp_path / "efface.zip")
    built = from_fides(zip_file)
    assert (built["supported_actions"], built["strategy"]) == (["erasure"], "polling")
    assert perform(alice, built["test"]).status_code == 200

    made = perform(alice, built["erasure"])
    assert made.status_code == 202, made.text
    job_id = made.json()[built["correlation_id_path"]]
    job = alice.get(f"/jobs/{job_id}").json()
    assert (job["external_id"], job["received_at"]) == ("fides-pri_7c9b", "2026-11-02T09:00:00Z")
    target = job["request"]["target"]
    assert (target["type"], target["class"], target["labels"]) == ("class", "horse", ["horse", "cow"])

    path = from_fides(zip_file, job=job_id)["status"]
    waiting = perform(alice, path)
    make_job.claim(job_id)
    running = perform(alice, path)
    make_job.finish(job_id, passed=True)
    done = perform(alice, path)
    assert from_fides(zip_file, responses=[waiting, running, done])["completed"] == [False, False, True]


@needs_fides
def test_what_a_person_typed_stays_a_class_name(alice, body, tmp_path):
    typed = 'horse", "thresholds": {}, "x": "'
    request = from_fides(pack(tmp_path / "efface.zip"), class_=typed)["erasure"]

    assert json.loads(request["body"]) == body
    problem = assert_problem(perform(alice, request), 422, "invalid_request")
    assert [error["pointer"] for error in problem["errors"]] == ["/labels"]


@needs_fides
def test_fides_takes_the_zip_that_waits_to_be_called(alice, body, receiver, tmp_path):
    built = from_fides(pack(tmp_path / "efface.zip", callback=True))

    assert built["strategy"] == "callback"
    made = perform(alice, built["erasure"])
    assert made.status_code == 202, made.text


def test_the_zip_holds_what_fides_looks_for(tmp_path):
    first, again = pack(tmp_path / "1.zip"), pack(tmp_path / "2.zip")

    with ZipFile(first) as archive:
        assert archive.namelist() == list(FILES)
        assert archive.read("config.yml") == (FOLDER / "config.yml").read_bytes()
    assert first.read_bytes() == again.read_bytes()


# What Fides gets


def test_a_privacy_request_sent_twice_is_one_job(alice, body):
    first, again = sent(alice, body), sent(alice, body)

    assert first.status_code == again.status_code == 202
    assert first.json()["id"] == again.json()["id"]


def test_after_a_failure_it_can_be_asked_for_anew(alice, body, make_job):
    job_id = sent(alice, body).json()["id"]
    make_job.claim(job_id)
    make_job.finish(job_id, passed=False)

    assert sent(alice, body).json()["id"] != job_id


def test_a_failed_job_is_an_error_at_once(alice, body, make_job):
    job_id = sent(alice, body).json()["id"]
    make_job.claim(job_id)
    make_job.finish(job_id, passed=False)

    problem = assert_problem(alice.get(f"{JOBS}/{job_id}"), 409, "conflict")
    assert "thresholds_not_met" in problem["detail"]


def test_a_cancelled_job_is_an_error_at_once(alice, body):
    job_id = sent(alice, body).json()["id"]
    alice.post(f"/jobs/{job_id}/refuse", json={"ground": "no_match"})

    assert "no_match" in assert_problem(alice.get(f"{JOBS}/{job_id}"), 409, "conflict")["detail"]


def test_the_class_must_be_known(alice, body):
    problem = assert_problem(sent(alice, body | {"labels": ["dog", "cow"]}), 422, "invalid_request")

    assert "'horse' is not among the labels" in problem["detail"]
    assert [error["pointer"] for error in problem["errors"]] == ["/labels"]


# The call-back


def test_fides_is_called_when_the_erasure_has_succeeded(alice, body, receiver, make_job, fleet, database):
    job_id = sent(alice, body, reply_to=CALLBACK_PATH, reply_to_token=TOKEN).json()["id"]
    with database.transaction() as session:
        rows = session.execute(text("SELECT t::text FROM webhook_secrets t")).scalars().all()
        assert len(rows) == 1
        assert TOKEN.encode().hex() not in rows[0]
    with fleet.relay():
        make_job.claim(job_id)
        make_job.finish(job_id, passed=True)
        wait_until(lambda: receiver.calls, "Fides was not called")

    (call,) = receiver.calls
    assert (call.path, json.loads(call.body)) == (CALLBACK_PATH, {"rows_masked": 1})
    assert call.headers["authorization"] == f"Bearer {TOKEN}"


def test_a_task_that_is_tried_again_is_called_with_its_new_token(alice, body, receiver, make_job, fleet):
    for token in ("first", "second"):
        job_id = sent(alice, body, reply_to=CALLBACK_PATH, reply_to_token=token).json()["id"]
    make_job.claim(job_id)
    make_job.finish(job_id, passed=True)
    with fleet.relay():
        wait_until(lambda: len(receiver.calls) == 1, "Fides was not called")
        sent(alice, body, reply_to=CALLBACK_PATH, reply_to_token="third")  # after the end
        wait_until(lambda: len(receiver.calls) == 2, "Fides was not called again")

    assert [call.headers["authorization"] for call in receiver.calls] == ["Bearer second", "Bearer third"]


@pytest.mark.parametrize("path", ["https://evil.example.com/", "//evil.example.com/", "/api/v1/oauth/token", "x"])
def test_no_other_place_is_called(alice, body, receiver, path):
    response = sent(alice, body, reply_to=path, reply_to_token=TOKEN)

    assert CALLBACK_PATH in assert_problem(response, 422, "invalid_request")["detail"]
    assert alice.get("/jobs").json()["data"] == []


def test_half_a_call_back_is_refused(alice, body, receiver):
    assert "send both" in assert_problem(sent(alice, body, reply_to=CALLBACK_PATH), 422, "invalid_request")["detail"]


def test_without_an_address_nobody_is_called_back(alice, body):
    response = sent(alice, body, reply_to=CALLBACK_PATH, reply_to_token=TOKEN)

    assert "EFFACE_FIDES_URL" in assert_problem(response, 422, "invalid_request")["detail"]
