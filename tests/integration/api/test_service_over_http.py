"""Health, version, metrics, and what happens when a part is down."""

import contextlib
from datetime import timedelta

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr
from sqlalchemy import func, text, update

from api.boundary import OPEN_PATHS
from services.fleet import processes
from services.fleet.processes import Sign
from shared.ports.embedded_servers import free_port
from shared.postgres.tables import Job, ServiceProcess
from shared.schemas.methods import METHOD_PARAMETERS
from shared.states import ProcessKind

RELAY, WORKER = ProcessKind.RELAY, ProcessKind.WORKER


OWED_NOTHING = {"certificates": 0, "purges": 0, "deliveries": 0}


@pytest.fixture
def beat(database):
    """Write that a process lives, or did a while ago."""

    def say(kind, *, seconds_ago=0, job_id=None, **facts):
        sign = Sign(f"{kind}-1", kind, "here", 1, "1.0", job_id, facts)
        with database.transaction() as session:
            processes.beat(session, sign)
            past = func.clock_timestamp() - timedelta(seconds=seconds_ago)
            session.execute(update(ServiceProcess).where(ServiceProcess.id == sign.id).values(seen_at=past))

    return say


@pytest.fixture
def forgetful(monkeypatch):
    """Have servers that are started after this look again for every question whether they are ready."""
    monkeypatch.setattr("api.parts.READY_SECONDS", 0.0)


def test_ready_when_everything_is(server, beat):
    beat(RELAY, signing_key=True, stuck={})
    beat(WORKER, doorbell="heard")

    response = httpx.get(f"{server}/health/ready")

    assert response.status_code == 200
    assert response.json() == {
        "status": "up",
        "checks": {"postgres": "up", "migrations": "up", "redis": "up", "storage": "up"},
        "notes": [],
        "owed": OWED_NOTHING,
    }


@pytest.mark.usefixtures("forgetful")
def test_ready_though_others_are_silent_and_says_who(server, beat, make_job):
    def asked():
        response = httpx.get(f"{server}/health/ready")
        assert response.status_code == 200
        return response.json()

    make_job.succeeded()
    nobody = asked()
    beat(RELAY, seconds_ago=100, signing_key=True, stuck={})
    beat(WORKER, doorbell="heard")
    silent = asked()
    beat(RELAY, signing_key=False, stuck={"relay.purge": 300})
    beat(WORKER, doorbell="silent")
    amiss = asked()

    assert nobody["status"] == silent["status"] == amiss["status"] == "degraded"
    assert nobody["owed"] == OWED_NOTHING | {"certificates": 1, "purges": 1}
    assert [note.split(";")[0] for note in nobody["notes"]] == ["no relay was seen", "no worker was seen"]
    (note,) = silent["notes"]
    assert note.startswith("no relay was heard of for 10")
    assert [note.split(";")[0] for note in amiss["notes"]] == [
        "relay.purge of the relay on here is stuck",
        "no relay has a key that signs certificates",
        "the worker on here hears no messages",
    ]


def test_workers_are_listed_and_jobs_of_others_are_not_named(alice, bob, beat, make_job):
    job = make_job.running()
    beat(WORKER, job_id=job, device="cpu", isolation="no network", doorbell="heard", renewals=2)
    beat(RELAY, seconds_ago=60, signing_key=True, stuck={})

    mine, theirs = (client.get("/workers").json()["data"] for client in (alice, bob))

    assert [(row["kind"], row["alive"], row["busy"], row["job"]) for row in mine] == [
        ("relay", False, False, None),
        ("worker", True, True, job),
    ]
    assert mine[1]["facts"] == {"device": "cpu", "isolation": "no network", "doorbell": "heard", "renewals": 2}
    assert [(row["busy"], row["job"]) for row in theirs] == [(False, None), (True, None)]


def test_metrics_tell_who_works_and_what_is_late(alice, beat, make_job, database):
    overdue, risky = make_job.queued(), make_job.queued()
    with database.transaction() as session:
        past = func.clock_timestamp() - timedelta(days=1)
        session.execute(update(Job).where(Job.id == overdue).values(due_at=past))
        session.execute(update(Job).where(Job.id == risky).values(at_risk_at=past))
    beat(WORKER, job_id=overdue, doorbell="away", renewals=3)
    beat(RELAY, seconds_ago=20, signing_key=True, stuck={})

    lines = alice.get("/metrics").text.splitlines()

    for line in (
        'efface_processes{kind="worker",state="busy"} 1.0',
        'efface_processes{kind="worker",state="idle"} 0.0',
        'efface_processes{kind="relay",state="idle"} 1.0',
        "efface_jobs_overdue 1.0",
        "efface_jobs_at_risk 1.0",
        "efface_doorbells_silent 1.0",
        "efface_doorbell_renewals 3.0",
        "efface_certificates_owed 0.0",
        "efface_purges_owed 0.0",
        "efface_deliveries_owed 0.0",
    ):
        assert line in lines
    (age,) = [float(line.split()[1]) for line in lines if line.startswith("efface_relay_seconds ")]
    assert 20 <= age < 60


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
