"""Who may do what: keys, scopes, tenants."""

import httpx
import pytest

from services import keys
from shared.states import Scope
from tests.support.fleet import wait_until

ROUTES = [
    ("POST", "/jobs", Scope.JOBS_WRITE),
    ("GET", "/jobs", Scope.JOBS_READ),
    ("GET", "/jobs/job_x", Scope.JOBS_READ),
    ("POST", "/jobs/job_x/cancel", Scope.JOBS_WRITE),
    ("GET", "/jobs/job_x/events", Scope.JOBS_READ),
    ("GET", "/jobs/job_x/metrics", Scope.JOBS_READ),
    ("GET", "/jobs/job_x/report", Scope.JOBS_READ),
    ("GET", "/jobs/job_x/report.html", Scope.JOBS_READ),
    ("GET", "/jobs/job_x/weights", Scope.JOBS_READ),
    ("POST", "/models", Scope.MODELS_WRITE),
    ("GET", "/models", Scope.MODELS_READ),
    ("GET", "/models/mdl_x", Scope.MODELS_READ),
    ("POST", "/datasets", Scope.DATASETS_WRITE),
    ("GET", "/datasets", Scope.DATASETS_READ),
    ("GET", "/datasets/ds_x", Scope.DATASETS_READ),
]
OPEN_TO_STRANGERS = ["/health/live", "/health/ready", "/schemas/report-1.0.json"]
OPEN_TO_ANY_KEY = [("GET", path) for path in ("/version", "/metrics", "/openapi.json", "/docs")]


def assert_problem(response, status, code):
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    body = response.json()
    assert (body["status"], body["code"], body["type"]) == (status, code, f"urn:efface:problem:{code}")
    assert body["instance"] == f"urn:uuid:{response.headers['X-Request-Id']}"
    return body


def test_every_route_of_the_service_is_in_the_lists_above(alice):
    paths = alice.get("/openapi.json").json()["paths"]
    served = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    filled = {(method, path.replace("job_x", "{job_id}").replace("mdl_x", "{model_id}").replace("ds_x", "{dataset_id}"))
              for method, path, _ in ROUTES}  # fmt: skip

    assert served == filled | {("GET", p) for p in ("/version", "/metrics", *OPEN_TO_STRANGERS)}


@pytest.mark.parametrize("path", OPEN_TO_STRANGERS)
def test_health_and_schema_answer_strangers(server, path):
    assert httpx.get(server + path).status_code == 200


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer efk_wrong"}, {"Authorization": "Basic YTpi"},
                                     {"Authorization": "Bearer"}, {"Authorization": b"Bearer \xff"}])  # fmt: skip
def test_nothing_else_answers_strangers(server, headers):
    for method, path, *_ in [*ROUTES, *OPEN_TO_ANY_KEY, ("GET", "/"), ("GET", "/nowhere"), ("PUT", "/health/live/x")]:
        response = httpx.request(method, server + path, headers=headers, content=b"{" if method == "POST" else None)
        assert_problem(response, 401, "unauthenticated")
        assert response.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize(("method", "path"), OPEN_TO_ANY_KEY)
def test_any_key_opens_what_tells_of_the_service(connect, method, path):
    assert connect(scopes=(Scope.DATASETS_READ,)).request(method, path).status_code == 200


def test_each_route_wants_its_scope_and_no_other(connect):
    for method, path, scope in ROUTES:
        body = {"json": {}} if method == "POST" else {}
        others = tuple(other for other in Scope if other not in (scope, Scope.ADMIN))
        refused = connect(scopes=others).request(method, path, **({} if path == "/jobs" and method == "POST" else body))
        allowed = connect(scopes=(scope,)).request(method, path, **body)

        assert allowed.status_code in (200, 404, 422), (method, path)
        if (method, path) == ("POST", "/jobs"):
            continue  # its body is read first; see below
        assert scope in assert_problem(refused, 403, "forbidden")["detail"], (method, path)


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


def test_another_tenants_things_do_not_exist(bob, make_job, alice, archive):
    job_id = make_job.succeeded()
    dataset_id = alice.post("/datasets", content=archive.read_bytes(), params={"name": "x"}).json()["id"]
    for method, path in [
        ("GET", f"/jobs/{job_id}"),
        ("POST", f"/jobs/{job_id}/cancel"),
        *(("GET", f"/jobs/{job_id}/{what}") for what in ("events", "metrics", "report", "weights")),
        ("GET", "/models/mdl_alice"),
        ("GET", f"/datasets/{dataset_id}"),
    ]:
        assert_problem(bob.request(method, path), 404, "not_found")
        assert alice.request(method, path).status_code != 404
    for path in ("/jobs", "/models", "/datasets"):
        assert bob.get(path).json() == {"object": "list", "data": [], "has_more": False}


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
        for key, _ in keys.list_keys(session):
            keys.revoke(session, key.id)

    assert_problem(alice.get("/version"), 401, "unauthenticated")
