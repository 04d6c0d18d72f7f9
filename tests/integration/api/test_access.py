"""Who may do what: keys, scopes, tenants. What every route has in common is in test_every_route."""

import httpx
import pytest

from services.access import api_keys
from shared.states import Scope
from tests.support.fleet import wait_until
from tests.support.problems import assert_problem

OPEN = [
    "/health/live",
    "/health/ready",
    "/.well-known/efface-keys.json",
    "/schemas/certificate-1.json",
    "/schemas/report-1.0.json",
]


@pytest.mark.parametrize("path", OPEN)
def test_what_is_open_answers_strangers(server, path):
    assert httpx.get(server + path).status_code == 200


WRONG = [{"Authorization": "Bearer efk_wrong"}, {"Authorization": "Bearer eft_wrong"},
         {"Authorization": "Basic YTpi"}, {"Authorization": "Bearer"}, {"Authorization": b"Bearer \xff"}]  # fmt: skip


@pytest.mark.parametrize("headers", WRONG)
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", path) for path in ("/jobs", "/docs/x", "/openapi.json/", "/", "/nowhere")] + [("PUT", "/health/live/x")],
)
def test_what_is_no_key_opens_nothing(server, method, path, headers):
    response = httpx.request(method, server + path, headers=headers)

    assert_problem(response, 401, "unauthenticated")
    assert response.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize("path", ["/openapi.json", "/docs"])
def test_the_documentation_needs_no_key_and_takes_any(connect, server, path):
    assert httpx.get(server + path).status_code == 200
    assert connect(scopes=(Scope.DATASETS_READ,)).get(path).status_code == 200


def test_a_sound_request_is_refused_without_the_scope(connect, request_body):
    refused = connect(scopes=(Scope.JOBS_READ,)).post("/jobs", json=request_body)

    assert_problem(refused, 403, "forbidden")


def test_an_upload_is_refused_before_it_is_read(connect):
    def endless():
        for _ in range(1_000_000):  # 65 GB: the test ends because the server hangs up
            yield b"x" * 65536

    with connect(scopes=(Scope.DATASETS_READ,)) as client:
        response = client.post("/datasets", content=endless())

    assert_problem(response, 403, "forbidden")


def test_another_tenants_model_and_data_cannot_be_used(bob, alice, request_body, archive):
    dataset_id = alice.post("/datasets", content=archive.read_bytes(), params={"name": "x"}).json()["id"]
    request_body["data"] = {"evaluation": [{"name": "x", "dataset": dataset_id}]}

    body = assert_problem(bob.post("/jobs", json=request_body), 422, "invalid_request")

    assert {e["pointer"] for e in body["errors"]} == {"/model/id", "/data/evaluation/0/dataset"}


def test_no_key_stands_in_the_log(alice, logs):
    alice.get("/jobs")
    alice.get("/datasets", headers={"Authorization": "Bearer efk_guessed"})

    def statuses():
        return [line["status"] for line in logs if line["event"] == "http.request"]

    wait_until(lambda: len(statuses()) == 2, "a request is not in the log")  # it is written after the answer is sent
    assert statuses() == [200, 401]
    assert alice.headers["Authorization"].removeprefix("Bearer ") not in str(logs)
    assert "efk_guessed" not in str(logs)
    assert next(line for line in logs if line["event"] == "http.request")["path"] == "/jobs"


def test_a_revoked_key_is_a_strangers(alice, database):
    assert alice.get("/version").status_code == 200
    with database.transaction() as session:
        for key, _ in api_keys.list_keys(session):
            api_keys.revoke(session, key.id)

    assert_problem(alice.get("/version"), 401, "unauthenticated")
