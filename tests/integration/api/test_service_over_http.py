"""Health, version, metrics, and what happens when a part is down."""

import contextlib

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr
from sqlalchemy import text

from api.boundary import OPEN_PATHS
from shared.embedded import free_port
from shared.schemas.methods import METHOD_PARAMETERS


def test_ready_when_everything_is(server):
    response = httpx.get(f"{server}/health/ready")

    assert response.status_code == 200
    assert response.json() == {
        "status": "up",
        "checks": {"postgres": "up", "migrations": "up", "redis": "up", "storage": "up"},
    }


@pytest.mark.parametrize(
    ("changes", "down"),
    [
        ({"database_url": SecretStr(f"postgresql://127.0.0.1:{free_port()}/efface")}, {"postgres", "migrations"}),
        ({"redis_url": SecretStr(f"redis://127.0.0.1:{free_port()}/0")}, {"redis"}),
        ({"storage_url": "s3://bucket?"}, {"storage"}),
    ],
)
def test_not_ready_names_what_is_down(serve, settings, monkeypatch, changes, down):
    for name, value in {"ENDPOINT": f"http://127.0.0.1:{free_port()}", "ALLOW_HTTP": "true", "REGION": "x"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    url = serve(settings.model_copy(update=changes))

    response = httpx.get(f"{url}/health/ready", timeout=60)

    assert response.status_code == 503
    assert {part for part, state in response.json()["checks"].items() if state == "down"} == down
    assert httpx.get(f"{url}/health/live").status_code == 200


def test_not_ready_before_the_migrations(server, database):
    with database.transaction() as session:
        session.execute(text("ALTER TABLE alembic_version RENAME TO elsewhere"))
    try:
        checks = httpx.get(f"{server}/health/ready").json()["checks"]
    finally:
        with database.transaction() as session:
            session.execute(text("ALTER TABLE elsewhere RENAME TO alembic_version"))

    assert [part for part, state in checks.items() if state == "down"] == ["migrations"]


def test_without_postgres_everything_is_503_and_says_when_to_come_back(serve, settings):
    url = serve(settings.model_copy(update={"database_url": SecretStr(f"postgresql://127.0.0.1:{free_port()}/x")}))

    response = httpx.get(f"{url}/jobs", headers={"Authorization": "Bearer efk_x"}, timeout=30)

    assert response.status_code == 503
    assert response.headers["Retry-After"]
    assert response.json()["code"] == "unavailable"
    assert "127.0.0.1" not in response.text


def test_a_lost_connection_costs_nobody_an_error(alice, database):
    assert alice.get("/jobs").status_code == 200
    with contextlib.suppress(Exception), database.transaction() as session:
        session.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'efface'")
        )

    assert alice.get("/jobs").status_code == 200


def test_a_fault_of_ours_is_500_and_leaks_nothing(alice, database):
    with database.transaction() as session:
        session.execute(text("ALTER TABLE datasets RENAME TO elsewhere"))
    try:
        response = alice.get("/datasets")
    finally:
        with database.transaction() as session:
            session.execute(text("ALTER TABLE elsewhere RENAME TO datasets"))

    assert response.status_code == 500
    assert response.json()["code"] == "internal_error"
    assert "datasets" not in response.text
    assert "SELECT" not in response.text


def test_an_unknown_route_and_method(alice):
    unknown, wrong = alice.get("/nowhere"), alice.delete("/jobs")

    assert (unknown.status_code, unknown.json()["code"]) == (404, "not_found")
    assert (wrong.status_code, wrong.json()["code"]) == (405, "method_not_allowed")
    assert wrong.headers["Allow"] == "GET, HEAD, POST"


def test_version(alice, settings):
    body = alice.get("/version").json()

    assert body["methods"] == list(METHOD_PARAMETERS)
    assert body["max_upload_bytes"] == settings.max_upload_bytes


def test_metrics(alice, make_job):
    make_job.queued()
    make_job.running()
    make_job.succeeded()
    alice.get("/jobs/job_a")
    alice.get("/jobs/job_b")

    response = alice.get("/metrics")
    samples = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }

    assert response.headers["Content-Type"].startswith("text/plain")
    assert samples["efface_jobs", (("state", "queued"),)] == 1
    assert samples["efface_jobs", (("state", "running"),)] == 1
    assert samples["efface_jobs", (("state", "failed"),)] == 0
    assert samples["efface_oldest_queued_seconds", ()] > 0
    assert samples["efface_certificates_owed", ()] == 1
    assert samples["efface_queue_messages", ()] == 0
    labels = (("method", "GET"), ("route", "/jobs/{job_id}"), ("status", "404"))
    assert samples["efface_http_requests_total", labels] == 2
    assert samples["efface_http_response_seconds_count", labels[:2]] == 2


def test_metrics_without_redis_still_count_jobs(serve, settings, make_key):
    url = serve(settings.model_copy(update={"redis_url": SecretStr(f"redis://127.0.0.1:{free_port()}/0")}))

    response = httpx.get(f"{url}/metrics", headers={"Authorization": f"Bearer {make_key()}"}, timeout=30)

    assert response.status_code == 200
    assert "efface_jobs{" in response.text
    assert "efface_queue_messages" not in response.text


def test_the_openapi_document_has_an_example_for_each_body_and_problems_for_each_route(alice):
    document = alice.get("/openapi.json").json()

    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation["summary"], path
            if path not in OPEN_PATHS:
                problem = operation["responses"]["401"]["content"]["application/problem+json"]
                assert problem["schema"] == {"$ref": "#/components/schemas/Problem"}, (method, path)
            content = operation.get("requestBody", {}).get("content", {})
            if "application/json" in content:
                assert {"example", "examples"} & set(content["application/json"]), (method, path)
    assert "Problem" in document["components"]["schemas"]
    assert "HTTPValidationError" not in document["components"]["schemas"]
