"""Reports and weights."""

import hashlib
from base64 import b64encode

import httpx
import pytest

from shared.schemas.publish import report_schema
from shared.schemas.report import REPORT_SCHEMA_PATH
from tests.integration.api.conftest import PAGE, REPORT, WEIGHTS

DIGEST = hashlib.sha256(WEIGHTS)


def test_the_report_is_what_the_worker_wrote(alice, make_job):
    response = alice.get(f"/jobs/{make_job.succeeded()}/report")

    assert (response.status_code, response.content) == (200, REPORT)
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["Link"] == '</schemas/report-1.0.json>; rel="describedby"'


def test_the_page_is_what_the_worker_wrote_and_a_browser_may_only_show_it(alice, make_job):
    response = alice.get(f"/jobs/{make_job.succeeded()}/report.html")

    assert (response.status_code, response.content) == (200, PAGE)
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    policy = {part.split()[0]: part.split()[1:] for part in response.headers["Content-Security-Policy"].split(";")}
    assert policy["default-src"] == policy["frame-ancestors"] == ["'none'"]
    assert policy["sandbox"] == []
    assert "script-src" not in policy


def test_the_schema_is_served_to_anyone_and_once(server):
    first = httpx.get(server + REPORT_SCHEMA_PATH)
    again = httpx.get(server + REPORT_SCHEMA_PATH, headers={"If-None-Match": first.headers["ETag"]})

    assert first.headers["Content-Type"] == "application/schema+json"
    assert first.json() == report_schema()
    assert (again.status_code, again.content) == (304, b"")


def test_the_client_gets_the_page(alice_client, make_job):
    assert alice_client.report_page(make_job.succeeded()) == PAGE.decode()


def test_a_stranger_gets_no_page(bob, make_job):
    assert bob.get(f"/jobs/{make_job.succeeded()}/report.html").status_code == 404


@pytest.mark.parametrize("what", ["report", "report.html"])
def test_a_report_that_is_known_is_not_sent_again(alice, make_job, what):
    path = f"/jobs/{make_job.succeeded()}/{what}"

    response = alice.get(path, headers={"If-None-Match": alice.get(path).headers["ETag"]})

    assert (response.status_code, response.content) == (304, b"")


def test_a_job_that_missed_a_threshold_has_a_report_but_no_weights(alice, make_job):
    job_id = make_job.missed()

    assert alice.get(f"/jobs/{job_id}/report").status_code == 200
    assert alice.get(f"/jobs/{job_id}/report.html").status_code == 200
    refused = alice.get(f"/jobs/{job_id}/weights")
    assert refused.status_code == 409
    assert "thresholds_not_met" in refused.json()["detail"]


@pytest.mark.parametrize("what", ["report", "report.html", "weights"])
@pytest.mark.parametrize("state", ["queued", "running"])
def test_there_is_nothing_before_the_end(alice, make_job, state, what):
    response = alice.get(f"/jobs/{getattr(make_job, state)()}/{what}")

    assert response.status_code == 409
    assert state in response.json()["detail"]


def test_weights_whole(alice, make_job):
    response = alice.get(f"/jobs/{make_job.succeeded()}/weights")

    assert (response.status_code, response.content) == (200, WEIGHTS)
    assert response.headers["Content-Length"] == str(len(WEIGHTS))
    assert response.headers["Accept-Ranges"] == "bytes"
    assert response.headers["ETag"] == f'"{DIGEST.hexdigest()}"'
    assert response.headers["Repr-Digest"] == f"sha-256=:{b64encode(DIGEST.digest()).decode()}:"
    assert response.headers["Content-Disposition"] == 'attachment; filename="open_clip_model.safetensors"'


@pytest.mark.parametrize(
    ("wanted", "start", "end"), [("bytes=0-9", 0, 10), ("bytes=10000-", 10000, 10240), ("bytes=-5", 10235, 10240)]
)
def test_weights_in_part(alice, make_job, wanted, start, end):
    response = alice.get(f"/jobs/{make_job.succeeded()}/weights", headers={"Range": wanted})

    assert (response.status_code, response.content) == (206, WEIGHTS[start:end])
    assert response.headers["Content-Range"] == f"bytes {start}-{end - 1}/{len(WEIGHTS)}"
    assert response.headers["Content-Length"] == str(end - start)


def test_a_range_behind_the_end(alice, make_job):
    response = alice.get(f"/jobs/{make_job.succeeded()}/weights", headers={"Range": "bytes=99999-"})

    assert response.status_code == 416
    assert response.headers["Content-Range"] == f"bytes */{len(WEIGHTS)}"


@pytest.mark.parametrize(("tag", "status"), [(DIGEST.hexdigest(), 206), ("another", 200)])
def test_if_range_guards_a_resumed_download(alice, make_job, tag, status):
    headers = {"Range": "bytes=5-", "If-Range": f'"{tag}"'}

    assert alice.get(f"/jobs/{make_job.succeeded()}/weights", headers=headers).status_code == status


def test_weights_that_are_known_are_not_sent_again(alice, make_job):
    headers = {"If-None-Match": f'"{DIGEST.hexdigest()}"'}

    assert alice.get(f"/jobs/{make_job.succeeded()}/weights", headers=headers).status_code == 304


def test_the_other_file(alice, make_job):
    job_id = make_job.succeeded()

    assert alice.get(f"/jobs/{job_id}/weights", params={"file": "open_clip_config.json"}).content == b"{}"
    wrong = alice.get(f"/jobs/{job_id}/weights", params={"file": "../report.json"})
    assert wrong.status_code == 422
    assert wrong.json()["errors"][0]["parameter"] == "file"


def test_a_file_that_the_storage_lost_is_the_services_fault(alice, make_job, storage):
    job_id = make_job.succeeded()
    storage.delete("tenants/t/jobs")

    for what in ("report", "report.html", "weights"):
        response = alice.get(f"/jobs/{job_id}/{what}")
        assert response.status_code == 503
        assert "tenants/" not in response.text


def test_the_client_writes_the_local_dir_layout(alice_client, make_job, tmp_path):
    received = []

    folder = alice_client.weights(make_job.succeeded(), tmp_path / "new" / "model", advance=received.append)

    assert (folder / "open_clip_model.safetensors").read_bytes() == WEIGHTS
    assert (folder / "open_clip_config.json").read_bytes() == b"{}"
    assert sum(received) == len(WEIGHTS) + 2
