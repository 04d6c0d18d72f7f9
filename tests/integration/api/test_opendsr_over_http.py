"""OpenDSR 2.0 from the outside: the specification's self-certification checklist for processors, point by point."""

import base64
import json
from ipaddress import ip_network
from uuid import uuid4

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from sqlalchemy import select, text

from api.examples import SUBJECT_REQUEST
from services.jobs import controller_decisions, lifecycle
from shared.postgres.tables import Base, Webhook, WebhookDelivery
from shared.schemas.job import JobError
from shared.states import Scope
from tests.support.fleet import wait_until
from tests.support.parts import PROCESSOR_DOMAIN, processor_files
from tests.support.problems import assert_problem
from tests.support.receiver import receiving

PREFIX = "/opendsr/v2"
PERSON = "johndoe@example.com"
DUE = "2026-12-02T23:59:59Z"
"""A calendar month after the example's `submitted_time`."""


@pytest.fixture
def body(request_body):
    """A sound request."""
    identity = {"identity_type": "email", "identity_value": PERSON, "identity_format": "raw"}
    return SUBJECT_REQUEST["erasure"]["value"] | {
        "subject_request_id": str(uuid4()),
        "subject_identities": [identity],
        "extensions": {PROCESSOR_DOMAIN: request_body, "other-processor.example.com": {"property_id": 7}},
    }


@pytest.fixture
def receiver(settings):
    """A controller's end point on loopback, which the operator allows."""
    settings.webhook_allow_networks.append(ip_network("127.0.0.0/8"))
    with receiving() as found:
        yield found


def verify(signature: str, body: bytes) -> None:
    """Check a signature by the published certificate, as a controller does; raises where it does not fit."""
    certificate = x509.load_pem_x509_certificate(processor_files()[1].read_bytes())
    certificate.public_key().verify(base64.b64decode(signature), body, PKCS1v15(), SHA256())


def sent(client: httpx.Client, body, path: str = "/requests") -> httpx.Response:
    response = client.post(PREFIX + path, json=body)
    assert response.status_code == 201, response.text
    return response


def status_of(client: httpx.Client, body) -> dict:
    response = client.get(f"{PREFIX}/requests/{body['subject_request_id']}")
    assert response.status_code == 200, response.text
    return response.json()


def job_of(client: httpx.Client, body) -> str:
    return status_of(client, body)["extensions"][PROCESSOR_DOMAIN]["job"]


def refused(response: httpx.Response) -> dict:
    """Return the error of a refusal, which is a problem as well."""
    problem = response.json()
    assert (response.status_code, problem["status"], problem["error"]["code"]) == (400, 400, 400), response.text
    assert response.headers["content-type"] == "application/problem+json"
    verify(response.headers["X-OpenDSR-Signature"], response.content)
    return problem["error"]


# New requests: validation, and processing with extensions


def test_a_request_is_answered_with_a_receipt(alice, body):
    response = sent(alice, body)

    receipt = response.json()
    assert base64.b64decode(receipt["encoded_request"]) == response.request.content
    assert receipt["subject_request_id"] == body["subject_request_id"]
    assert receipt["expected_completion_time"] == DUE
    assert {"controller_id", "received_time", "api_version", "processor_signature"} < set(receipt)


def test_a_request_becomes_an_ordinary_job(alice, body, request_body):
    sent(alice, body)

    job = alice.get(f"/jobs/{job_of(alice, body)}").json()
    assert job["external_id"] == body["subject_request_id"]
    assert job["received_at"] == body["submitted_time"]
    assert job["request"]["target"]["class"] == request_body["target"]["class"]
    assert job["state"] == "queued"


def test_the_same_request_again_is_the_same_job(alice, body):
    first, again = sent(alice, body).json(), sent(alice, body).json()

    assert first["received_time"] == again["received_time"]
    assert len(alice.get("/jobs").json()["data"]) == 1


def test_an_id_is_read_in_either_case_and_given_back_in_lower(alice, body):
    own = body["subject_request_id"]
    upper, lower = sent(alice, body | {"subject_request_id": own.upper()}).json(), sent(alice, body).json()
    status = alice.get(f"{PREFIX}/requests/{own.upper()}")

    assert upper["subject_request_id"] == lower["subject_request_id"] == own
    assert upper["received_time"] == lower["received_time"]
    assert (status.status_code, status.json()["subject_request_id"]) == (200, own)
    assert [job["external_id"] for job in alice.get("/jobs").json()["data"]] == [own]
    assert alice.delete(f"{PREFIX}/requests/{own.upper()}").status_code == 202


def test_an_id_cannot_stand_for_two_requests(alice, body):
    sent(alice, body)

    error = refused(alice.post(f"{PREFIX}/requests", json=body | {"regulation": "ccpa"}))
    assert "subject_request_id" in error["message"]


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"regulation": None}, "/regulation"),
        ({"regulation": "hipaa"}, "/regulation"),
        ({"subject_request_id": "A7551968-D5D6-44B2-9831-815AC901779"}, "/subject_request_id"),
        ({"subject_request_id": "a7551968-d5d6-14b2-9831-815ac9017798"}, "/subject_request_id"),
        ({"subject_request_type": "access"}, "/subject_request_type"),
        ({"submitted_time": "2026-11-02T09:00:00"}, "/submitted_time"),
        ({"submitted_time": "yesterday"}, "/submitted_time"),
        ({"submitted_time": "2030-01-01T00:00:00Z"}, "/submitted_time"),
        ({"subject_identities": [{"identity_type": "email", "identity_value": PERSON}]},
         "/subject_identities/0/identity_format"),
        ({"extensions": {}}, "/extensions"),
        ({"extensions": {PROCESSOR_DOMAIN: {}}}, f"/extensions/{PROCESSOR_DOMAIN}/model"),
        ({"extensions": {PROCESSOR_DOMAIN: {"external_id": "x"}}}, f"/extensions/{PROCESSOR_DOMAIN}/external_id"),
        ({"extensions": {PROCESSOR_DOMAIN: {"model": {"id": "mdl_x"}}}}, f"/extensions/{PROCESSOR_DOMAIN}/target"),
        ({"status_callback_urls": ["https://169.254.169.254/"]}, "/status_callback_urls/0"),
        ({"status_callback_urls": ["https://xn--/"]}, "/status_callback_urls/0"),
        ({"status_callback_urls": ["https://1.1.1.1/", "http://127.0.0.1/"]}, "/status_callback_urls/1"),
        ({"status_callback_urls": ["https://1.1.1.1/"] * 6}, "/status_callback_urls"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(alice, body, changes, pointer):
    wrong = {name: value for name, value in (body | changes).items() if value is not None}

    error = refused(alice.post(f"{PREFIX}/requests", json=wrong))
    assert pointer in {detail["domain"] for detail in error["errors"]}
    assert alice.get("/jobs").json()["data"] == []


@pytest.mark.parametrize(
    "identity",
    [
        {"identity_type": PERSON, "identity_value": "x", "identity_format": "raw"},
        {"identity_type": "email", "identity_value": "x", "identity_format": PERSON},
        {"identity_type": "email", "identity_value": [PERSON], "identity_format": "raw"},
        {"identity_type": "email", "identity_value": PERSON * 60, "identity_format": "raw"},
        PERSON,
    ],
)
def test_errors_do_not_repeat_who_the_person_is(alice, body, identity):
    response = alice.post(f"{PREFIX}/requests", json=body | {"subject_identities": [identity]})

    assert refused(response)["errors"][0]["domain"].startswith("/subject_identities/0")
    assert PERSON not in response.text


def test_a_body_that_is_no_json_is_not_repeated_either(alice):
    content = f'{{"{PERSON}": 1, "{PERSON}": 2}}'
    response = alice.post(f"{PREFIX}/requests", content=content, headers={"Content-Type": "application/json"})

    refused(response)
    assert PERSON not in response.text


def test_nothing_of_the_person_is_kept_or_logged(alice, body, database, logs):
    sent(alice, body)

    with database.transaction() as session:
        for table in Base.metadata.sorted_tables:
            rows = session.execute(text(f'SELECT t::text FROM "{table.name}" t')).scalars().all()
            assert not [row for row in rows if PERSON in row or base64.b64encode(PERSON.encode()).decode() in row]
    assert PERSON not in json.dumps(logs, default=str)
    assert any(entry["event"] == "http.request" for entry in logs)


# Status


def test_the_status_follows_the_job(alice, body, make_job):
    sent(alice, body)
    waiting = status_of(alice, body)
    job_id = waiting["extensions"][PROCESSOR_DOMAIN]["job"]
    make_job.claim(job_id)
    running = status_of(alice, body)
    make_job.finish(job_id, passed=True)
    done = status_of(alice, body)

    assert [said["request_status"] for said in (waiting, running, done)] == ["pending", "in_progress", "completed"]
    assert [said["results_url"] for said in (waiting, running)] == [None, None]
    assert done["expected_completion_time"] == DUE


def test_a_failure_is_never_completed(alice, body, make_job):
    sent(alice, body)
    job_id = job_of(alice, body)
    make_job.claim(job_id)
    make_job.finish(job_id, passed=False)

    said = status_of(alice, body)
    assert said["request_status"] == "in_progress"
    assert said["extensions"][PROCESSOR_DOMAIN] == {
        "job": job_id, "state": "failed", "reason": "thresholds_not_met", "undelivered_callbacks": 0
    }  # fmt: skip


def test_a_job_that_is_queued_again_stays_in_progress(alice, body, make_job, database):
    sent(alice, body)
    job_id = job_of(alice, body)
    make_job.claim(job_id)
    with database.transaction() as session:
        assert lifecycle.give_back(session, job_id, 1, JobError(code="worker_lost", message="it went away"))

    assert status_of(alice, body)["request_status"] == "in_progress"
    refused(alice.delete(f"{PREFIX}/requests/{body['subject_request_id']}"))


def test_a_refusal_says_its_ground(alice, body):
    sent(alice, body)
    alice.post(f"/jobs/{job_of(alice, body)}/refuse", json={"ground": "legal_claims"})

    said = status_of(alice, body)
    assert said["request_status"] == "cancelled"
    assert said["extensions"][PROCESSOR_DOMAIN]["ground"] == "legal_claims"


# Cancellation


def test_a_pending_request_can_be_cancelled(alice, body):
    sent(alice, body)
    response = alice.delete(f"{PREFIX}/requests/{body['subject_request_id']}")

    assert response.status_code == 202
    assert response.json()["subject_request_id"] == body["subject_request_id"]
    assert {"controller_id", "received_time", "processor_signature"} < set(response.json())
    assert status_of(alice, body)["request_status"] == "cancelled"


def test_only_a_pending_request_can_be_cancelled(alice, body, make_job):
    sent(alice, body)
    make_job.claim(job_of(alice, body))

    assert "in_progress" in refused(alice.delete(f"{PREFIX}/requests/{body['subject_request_id']}"))["message"]


# Results are secured


def test_results_are_behind_a_key(alice, bob, body, server, settings, make_job):
    sent(alice, body)
    job_id = job_of(alice, body)
    make_job.claim(job_id)
    make_job.finish(job_id, passed=True)
    url = status_of(alice, body)["results_url"]

    assert url == f"https://{PROCESSOR_DOMAIN}/jobs/{job_id}/certificate"
    path = url.removeprefix(f"https://{PROCESSOR_DOMAIN}")
    assert_problem(httpx.get(server + path), 401, "unauthenticated")
    assert_problem(bob.get(path), 404, "not_found")
    assert_problem(alice.get(path), 409, "not_yet")  # no relay runs here that would sign it


# Discovery


def test_discovery_says_what_is_supported(alice, server):
    found = alice.get(f"{PREFIX}/discovery").json()

    assert found["api_version"] == "2.0"
    assert found["supported_subject_request_types"] == ["erasure"]
    assert len(found["supported_identities"]) == 11 * 4
    assert {"identity_type": "email", "identity_format": "sha256"} in found["supported_identities"]
    assert found["processor_certificate"] == f"https://{PROCESSOR_DOMAIN}{PREFIX}/certificate.pem"
    certificate = httpx.get(server + found["processor_certificate"].removeprefix(f"https://{PROCESSOR_DOMAIN}"))
    assert certificate.content == processor_files()[1].read_bytes()


def test_the_extension_is_published(alice):
    (published,) = alice.get(f"{PREFIX}/discovery").json()["extensions"].items()
    assert published[0] == PROCESSOR_DOMAIN
    path, _, pointer = published[1]["schema"].removeprefix(f"https://{PROCESSOR_DOMAIN}").partition("#/")

    schema = alice.get(path).json()
    for part in pointer.split("/"):
        schema = schema[part]
    assert {"model", "target", "method"} <= set(schema["required"])


def test_links_begin_with_the_public_address(serve, settings, make_key):
    url = serve(settings.model_copy(update={"public_url": "https://dsr.example.org/"}))
    found = httpx.get(f"{url}{PREFIX}/discovery", headers={"Authorization": f"Bearer {make_key()}"}).json()

    assert found["processor_certificate"] == f"https://dsr.example.org{PREFIX}/certificate.pem"


# Access


def test_scopes_are_those_of_jobs(connect, body):
    with connect("alice", (Scope.JOBS_READ,)) as reader:
        assert_problem(reader.post(f"{PREFIX}/requests", json=body), 403, "forbidden")


def test_another_tenants_request_is_not_there(alice, bob, body):
    sent(alice, body)
    for method in ("GET", "DELETE"):
        response = bob.request(method, f"{PREFIX}/requests/{body['subject_request_id']}")
        assert response.json()["error"]["code"] == 404
        assert_problem(response, 404, "not_found")
    assert status_of(alice, body)["request_status"] == "pending"


# Signatures


def test_every_answer_is_signed(alice, body):
    answers = [
        sent(alice, body),
        alice.get(f"{PREFIX}/discovery"),
        alice.get(f"{PREFIX}/requests/{body['subject_request_id']}"),
        alice.delete(f"{PREFIX}/requests/{body['subject_request_id']}"),
        alice.get(f"{PREFIX}/requests/{uuid4()}"),
    ]

    assert [answer.status_code for answer in answers] == [201, 200, 200, 202, 404]
    for answer in answers:
        for name in ("OpenDSR", "OpenGDPR"):
            assert answer.headers[f"X-{name}-Processor-Domain"] == PROCESSOR_DOMAIN
            verify(answer.headers[f"X-{name}-Signature"], answer.content)


def test_receipts_carry_the_signature_of_themselves(alice, body):
    for answer in (sent(alice, body), alice.delete(f"{PREFIX}/requests/{body['subject_request_id']}")):
        signature = answer.json()["processor_signature"]
        rest, _, last = answer.content.rpartition(b',"processor_signature":')
        assert json.loads(last[:-1]) == signature
        verify(signature, rest + b"}")


def test_without_a_key_nothing_is_promised(serve, settings, make_key, body, database):
    url = serve(settings.model_copy(update={"opendsr_key_file": None}))
    client = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {make_key()}"})
    with client:
        for answer in (client.get(f"{PREFIX}/discovery"), client.post(f"{PREFIX}/requests", json=body)):
            assert "EFFACE_OPENDSR_KEY_FILE" in assert_problem(answer, 503, "unavailable")["detail"]
        assert client.get("/jobs").json()["data"] == []


# Call-backs


def test_the_controller_is_called_at_every_change(alice, body, receiver, make_job, fleet):
    sent(alice, body | {"status_callback_urls": [receiver.url]})
    job_id = job_of(alice, body)
    with fleet.relay():
        make_job.claim(job_id)
        wait_until(lambda: len(receiver.calls) == 1, "nobody was told that it is in progress")
        make_job.finish(job_id, passed=True)
        wait_until(lambda: len(receiver.calls) == 2, "nobody was told that it is completed")

    for call in receiver.calls:
        assert call.headers["x-opendsr-processor-domain"] == PROCESSOR_DOMAIN
        verify(call.headers["x-opendsr-signature"], call.body)
        verify(call.headers["x-opengdpr-signature"], call.body)
    told = [json.loads(call.body) for call in receiver.calls]
    assert [said["request_status"] for said in told] == ["in_progress", "completed"]
    assert {said["status_callback_url"] for said in told} == {receiver.url}
    assert {said["subject_request_id"] for said in told} == {body["subject_request_id"]}
    assert told[-1]["results_url"].endswith(f"/jobs/{job_id}/certificate")
    assert {"controller_id", "expected_completion_time", "results_count"} < set(told[-1])


def test_a_failure_and_an_extension_are_told(alice, body, receiver, make_job, database, settings):
    sent(alice, body | {"status_callback_urls": [receiver.url]})
    job_id = job_of(alice, body)
    with database.transaction() as session:
        session.execute(text("UPDATE jobs SET due_at = now() + interval '1 day'"))
        controller_decisions.extend(session, make_job.tenant_id(session), job_id, "complexity", settings)
    make_job.claim(job_id)
    make_job.finish(job_id, passed=False)

    with database.transaction() as session:
        rows = session.scalars(select(WebhookDelivery).order_by(WebhookDelivery.id))
        told = [(row.type, json.loads(row.body)) for row in rows]
    assert [kind for kind, _ in told] == ["job.extended", "job.started", "job.failed"]
    assert told[0][1]["expected_completion_time"] == "2027-02-02T23:59:59Z"
    assert told[2][1]["request_status"] == "in_progress"
    assert told[2][1]["extensions"][PROCESSOR_DOMAIN]["reason"] == "thresholds_not_met"


def test_a_second_attempt_is_no_change(alice, body, receiver, make_job, database):
    sent(alice, body | {"status_callback_urls": [receiver.url, receiver.url]})
    job_id = job_of(alice, body)
    make_job.claim(job_id)
    with database.transaction() as session:
        assert lifecycle.give_back(session, job_id, 1, JobError(code="worker_lost", message="it went away"))
    make_job.claim(job_id)

    with database.transaction() as session:
        assert session.scalars(select(WebhookDelivery.type)).all() == ["job.started"]


def test_call_backs_are_of_one_job_alone(alice, body, receiver, make_job, database):
    sent(alice, body | {"status_callback_urls": [receiver.url]})
    make_job.running()

    with database.transaction() as session:
        assert session.scalars(select(WebhookDelivery)).all() == []
        (endpoint,) = session.scalars(select(Webhook.id)).all()
    assert alice.get("/webhooks").json()["data"] == []
    assert_problem(alice.get(f"/webhooks/{endpoint}"), 404, "not_found")


def test_the_controller_learns_of_what_could_not_be_delivered(alice, body, receiver, make_job, fleet):
    receiver.answers.append((410, {}))
    sent(alice, body | {"status_callback_urls": [receiver.url]})
    make_job.claim(job_of(alice, body))

    def undelivered() -> int:
        return status_of(alice, body)["extensions"][PROCESSOR_DOMAIN]["undelivered_callbacks"]

    with fleet.relay():
        wait_until(undelivered, "the failure does not show")
    assert undelivered() == 1


# The former names


def test_the_former_paths_are_honoured(alice, body):
    former = {name: value for name, value in body.items() if name != "regulation"}  # there was one regulation
    receipt = sent(alice, former, "/opengdpr_requests")
    path = f"{PREFIX}/opengdpr_requests/{body['subject_request_id']}"

    assert receipt.headers["X-OpenGDPR-Processor-Domain"] == PROCESSOR_DOMAIN
    assert alice.get(path).json()["request_status"] == "pending"
    assert alice.delete(path).status_code == 202


# Figures


def test_fulfilment_is_counted(alice, body):
    sent(alice, body)

    assert 'efface_jobs{state="queued"} 1.0' in alice.get("/metrics").text
