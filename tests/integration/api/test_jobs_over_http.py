"""Submitting, listing, looking and cancelling."""

import pytest
from sqlalchemy import func, select

from api.examples import JOB_REQUESTS
from shared.postgres.tables import Job, JobEvent, Outbox
from shared.states import Stage


def pointers(response):
    assert response.status_code == 422, response.text
    return [error.get("pointer", error.get("parameter")) for error in response.json()["errors"]]


def test_submit_answers_202_with_the_job(alice, request_body, database):
    response = alice.post("/jobs", json=request_body | {"external_id": "DSR-1", "metadata": {"desk": "a\nb"}})

    assert response.status_code == 202
    job = response.json()
    assert response.headers["Location"] == f"/jobs/{job['id']}"
    assert int(response.headers["Retry-After"]) > 0
    assert (job["object"], job["state"], job["external_id"]) == ("job", "queued", "DSR-1")
    assert job["request"]["target"]["class"] == "horse"
    assert job["thresholds"]["max_synthetic_accuracy"] == 0.05
    with database.transaction() as session:
        assert [session.scalar(select(func.count()).select_from(t)) for t in (Job, JobEvent, Outbox)] == [1, 1, 1]


def test_validate_only_makes_no_job(alice, request_body, database):
    response = alice.post("/jobs", params={"validate_only": True}, json=request_body)

    assert response.status_code == 200
    assert "id" not in response.json()
    assert response.json()["labels"] == ["horse", "cow"]
    assert "Location" not in response.headers
    with database.transaction() as session:
        assert session.scalar(select(func.count()).select_from(Job)) == 0


def test_validate_only_finds_what_submit_finds(alice, request_body):
    request_body["model"] = {"id": "mdl_missing"}

    assert pointers(alice.post("/jobs", params={"validate_only": True}, json=request_body)) == ["/model/id"]


@pytest.mark.parametrize("name", JOB_REQUESTS)
def test_the_examples_of_the_documentation_are_sound_but_for_their_ids(alice, name):
    found = pointers(alice.post("/jobs", json=JOB_REQUESTS[name]["value"]))

    assert found
    assert all(pointer == "/model/id" or pointer.startswith("/data/") for pointer in found)


def test_wrong_fields_are_named(alice, request_body):
    request_body["target"] = {"type": "class", "class": "dog", "labels": ["horse", "cow"]}
    request_body["seed"] = -1

    response = alice.post("/jobs", json=request_body)

    assert set(pointers(response)) == {"/target/class", "/seed"}
    assert "'dog' is not among the labels" in response.json()["detail"]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"3", b'"x"', b"\xff", b"NaN", b'{"seed": 1e999}', b'{"a": 1, "a": 2}', b"[" * 100_000,
     b'{"seed": ' + b"9" * 5000 + b"}", b'{"external_id": "\\u0000"}', b'{"external_id": "\\ud800"}'],
)  # fmt: skip
def test_what_is_no_request_is_422_and_never_500(alice, body):
    assert pointers(alice.post("/jobs", content=body, headers={"Content-Type": "application/json"})) is not None


@pytest.mark.parametrize("media_type", ["text/plain", "application/xml", "application/octet-stream", ""])
def test_another_media_type_is_415(alice, media_type):
    response = alice.post("/jobs", content=b"{}", headers={"Content-Type": media_type} if media_type else {})

    assert response.status_code == 415
    assert response.json()["code"] == "unsupported_media_type"


def test_a_body_over_the_limit_is_413(alice, settings):
    body = b" " * (settings.max_body_bytes + 1)

    response = alice.post("/jobs", content=body, headers={"Content-Type": "application/json"})

    assert response.status_code == 413
    assert "EFFACE_MAX_BODY_BYTES" in response.json()["detail"]


def test_a_list_of_pages(alice, make_job):
    made = [make_job.queued() for _ in range(5)]

    first = alice.get("/jobs", params={"limit": 2}).json()
    second = alice.get("/jobs", params={"limit": 2, "after": first["data"][-1]["id"]}).json()
    third = alice.get("/jobs", params={"limit": 2, "after": second["data"][-1]["id"]}).json()

    assert [job["id"] for page in (first, second, third) for job in page["data"]] == made[::-1]
    assert [page["has_more"] for page in (first, second, third)] == [True, True, False]


def test_filters_narrow_a_list(alice, make_job):
    queued = make_job.queued(external_id="DSR 1/2")
    running = make_job.running()

    def listed(**filters):
        return [job["id"] for job in alice.get("/jobs", params=filters).json()["data"]]

    assert listed(state="queued") == [queued]
    assert listed(state="running") == [running]
    assert listed(external_id="DSR 1/2") == [queued]
    assert listed(method="synthetic", model="mdl_alice") == [running, queued]
    assert listed(method="three_stage") == listed(model="mdl_other") == []


@pytest.mark.parametrize(
    ("params", "parameter"),
    [({"limit": 0}, "limit"), ({"limit": 101}, "limit"), ({"limit": "x"}, "limit"), ({"state": "done"}, "state"),
     ({"external_id": "\0"}, "external_id"), ({"after": "' OR 1=1"}, "after"), ({"after": "job_x"}, "/after")],
)  # fmt: skip
def test_a_wrong_parameter_is_named(alice, params, parameter):
    assert pointers(alice.get("/jobs", params=params)) == [parameter]


def test_polling_with_an_etag(alice, make_job):
    job_id = make_job.running()
    first = alice.get(f"/jobs/{job_id}")
    same = alice.get(f"/jobs/{job_id}", headers={"If-None-Match": first.headers["ETag"]})
    make_job.enter(job_id, Stage.FORGETTING)
    changed = alice.get(f"/jobs/{job_id}", headers={"If-None-Match": first.headers["ETag"]})

    assert first.headers["ETag"].startswith('"')
    assert first.headers["Retry-After"]
    assert (same.status_code, same.content) == (304, b"")
    assert same.headers["ETag"] == first.headers["ETag"]
    assert changed.status_code == 200
    assert changed.json()["stage"] == "forgetting"
    assert changed.headers["ETag"] != first.headers["ETag"]


def test_a_finished_job_need_not_be_polled(alice, make_job):
    response = alice.get(f"/jobs/{make_job.missed()}")

    assert "Retry-After" not in response.headers
    assert response.json()["verdict"] == "failed"
    assert response.json()["error"]["code"] == "thresholds_not_met"


def test_a_waiting_job_is_cancelled_at_once_and_twice_is_no_error(alice, make_job):
    job_id = make_job.queued()

    answers = [alice.post(f"/jobs/{job_id}/cancel") for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert [answer.json()["state"] for answer in answers] == ["cancelled", "cancelled"]


def test_a_running_job_is_asked_to_stop(alice, make_job):
    answer = alice.post(f"/jobs/{make_job.running()}/cancel").json()

    assert (answer["state"], answer["cancel_requested"]) == ("running", True)


def test_a_finished_job_cannot_be_cancelled(alice, make_job):
    response = alice.post(f"/jobs/{make_job.succeeded()}/cancel")

    assert response.status_code == 409
    assert "succeeded" in response.json()["detail"]


def test_metrics_are_series_by_step(alice, make_job):
    job_id = make_job.running()
    make_job.step(job_id, 1, 0.5, loss=2.0, accuracy=0.5)
    make_job.step(job_id, 2, 1.0, loss=float("nan"))

    series = {one["name"]: one["points"] for one in alice.get(f"/jobs/{job_id}/metrics").json()["data"]}

    assert [(p["step"], p["value"]) for p in series["loss"]] == [(1, 2.0), (2, None)]
    assert [(p["step"], p["value"]) for p in series["accuracy"]] == [(1, 0.5)]


@pytest.mark.parametrize("job_id", ["job_missing", "%00", "job_\u00e4", "x" * 5000, "..%2fmodels"])
def test_there_is_no_such_job(alice, job_id):
    response = alice.get(f"/jobs/{job_id}")

    assert response.status_code == 404
    assert response.json()["code"] == "not_found"
