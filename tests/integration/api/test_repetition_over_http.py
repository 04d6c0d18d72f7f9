"""The same request twice: Idempotency-Key, and two tools with the same erasure."""

import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from sqlalchemy import func, select, text

from shared.postgres.advisory_locks import lock
from shared.postgres.tables import Dataset, Job, Model
from tests.support.problems import assert_problem

KEY = {"Idempotency-Key": '"8e03978e-40d5-43dd-bc93-6894a57f9324"'}
CLIENTS = 8


def count(database, table):
    with database.transaction() as session:
        return session.scalar(select(func.count()).select_from(table))


def test_a_repeated_submission_is_answered_with_the_first_answer(alice, request_body, database):
    first, second = (alice.post("/jobs", json=request_body, headers=KEY) for _ in range(2))

    assert (first.status_code, second.status_code) == (202, 202)
    assert second.content == first.content
    assert second.headers["Location"] == first.headers["Location"]
    assert "Idempotency-Replayed" not in first.headers
    assert second.headers["Idempotency-Replayed"] == "true"
    assert second.headers["X-Request-Id"] != first.headers["X-Request-Id"]
    assert count(database, Job) == 1


def test_the_answer_under_a_key_is_the_one_without(alice, request_body):
    plain = alice.post("/jobs", json=request_body)
    keyed = alice.post("/jobs", json=request_body, headers=KEY)

    assert plain.json().keys() == keyed.json().keys()
    assert plain.headers["Content-Type"] == keyed.headers["Content-Type"] == "application/json"


def test_a_bare_word_is_the_same_key(alice, request_body):
    first = alice.post("/jobs", json=request_body, headers={"Idempotency-Key": '"fides-1"'})
    second = alice.post("/jobs", json=request_body, headers={"Idempotency-Key": "fides-1"})

    assert second.headers["Idempotency-Replayed"] == "true"
    assert second.json()["id"] == first.json()["id"]


def test_the_order_of_fields_and_white_space_do_not_matter(alice, request_body):
    alice.post("/jobs", json=request_body, headers=KEY)
    turned = alice.post("/jobs", json=dict(reversed(request_body.items())), headers=KEY)

    assert turned.headers["Idempotency-Replayed"] == "true"


def test_another_payload_under_the_key_is_422(alice, request_body, database):
    alice.post("/jobs", json=request_body, headers=KEY)
    other = alice.post("/jobs", json=request_body | {"seed": 1}, headers=KEY)

    assert_problem(other, 422, "idempotency_key_reused")
    assert count(database, Job) == 1


def test_the_same_key_on_another_route_is_422(alice, request_body, archive):
    alice.post("/jobs", json=request_body, headers=KEY)

    response = alice.post("/datasets", content=archive.read_bytes(), params={"name": "x"}, headers=KEY)

    assert_problem(response, 422, "idempotency_key_reused")


def test_while_the_first_is_worked_on_the_second_is_409(alice, request_body, database, make_job):
    with database.transaction() as session:
        lock(session, "idempotency", make_job.tenant_id(session), "k")
        response = alice.post("/jobs", json=request_body, headers={"Idempotency-Key": "k"})

    assert_problem(response, 409, "idempotency_in_flight")
    assert int(response.headers["Retry-After"]) > 0
    assert alice.post("/jobs", json=request_body, headers={"Idempotency-Key": "k"}).status_code == 202


def test_many_at_once_make_one_job(server, make_key, request_body, database):
    headers = {"Authorization": f"Bearer {make_key()}"} | KEY
    together = threading.Barrier(CLIENTS)

    def post(_):
        with httpx.Client(base_url=server, headers=headers, timeout=20) as client:
            client.get("/version")  # connected before the others are let go
            together.wait(30)
            return client.post("/jobs", json=request_body)

    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = list(pool.map(post, range(CLIENTS)))

    assert {answer.status_code for answer in answers} <= {202, 409}
    accepted = [answer for answer in answers if answer.status_code == 202]
    assert [answer.headers.get("Idempotency-Replayed") for answer in accepted].count(None) == 1
    assert len({answer.content for answer in accepted}) == 1
    assert count(database, Job) == 1


def test_what_was_refused_may_be_mended_under_the_same_key(alice, request_body):
    refused = alice.post("/jobs", json=request_body | {"model": {"id": "mdl_none"}}, headers=KEY)
    mended = alice.post("/jobs", json=request_body, headers=KEY)

    assert (refused.status_code, mended.status_code) == (422, 202)


def test_validate_only_takes_no_key(alice, request_body):
    checked = alice.post("/jobs", params={"validate_only": True}, json=request_body, headers=KEY)
    sent = alice.post("/jobs", json=request_body, headers=KEY)

    assert (checked.status_code, sent.status_code) == (200, 202)
    assert "Idempotency-Replayed" not in sent.headers


def test_after_its_time_a_key_is_free_again(alice, request_body, database):
    first = alice.post("/jobs", json=request_body, headers=KEY).json()
    with database.transaction() as session:
        session.execute(text("UPDATE idempotency_keys SET expires_at = now() - interval '1 second'"))

    second = alice.post("/jobs", json=request_body, headers=KEY)

    assert "Idempotency-Replayed" not in second.headers
    assert second.json()["id"] != first["id"]


def test_how_long_answers_are_kept_is_published(alice, settings):
    assert alice.get("/version").json()["idempotency_seconds"] == settings.idempotency_seconds


@pytest.mark.parametrize("key", ['"open', '""', "", "a" * 256, '"a" b', "\u00e4".encode(), '"\u00e4"'.encode(), "a\tb"])
def test_what_is_no_key_is_422_and_names_the_header(alice, request_body, key, database):
    response = alice.post("/jobs", json=request_body, headers={"Idempotency-Key": key})

    (error,) = assert_problem(response, 422, "invalid_request")["errors"]
    assert error["parameter"] == "Idempotency-Key"
    assert count(database, Job) == 0


def test_an_upload_sent_twice_is_one_data_set_and_one_object(alice, archive, database, storage):
    def upload(name="farm"):
        return alice.post("/datasets", content=archive.read_bytes(), params={"name": name}, headers=KEY)

    first, second, other = upload(), upload(), upload(name="another")

    assert (first.status_code, second.status_code) == (201, 201)
    assert second.content == first.content
    assert second.headers["Idempotency-Replayed"] == "true"
    assert_problem(other, 422, "idempotency_key_reused")
    assert count(database, Dataset) == len(storage.list("tenants")) == 1


def test_an_upload_that_comes_to_nothing_leaves_no_object(alice, archive, database, storage, make_job):
    with database.transaction() as session:
        lock(session, "idempotency", make_job.tenant_id(session), "k")
        response = alice.post(
            "/datasets", content=archive.read_bytes(), params={"name": "x"}, headers={"Idempotency-Key": "k"}
        )

    assert_problem(response, 409, "idempotency_in_flight")
    assert storage.list("tenants") == []


def test_a_model_is_registered_once(alice, database, settings, tmp_path):
    settings.path_roots.append(tmp_path)
    (tmp_path / "clip").mkdir()
    body = {"name": "clip", "model": {"source": f"local-dir:{tmp_path / 'clip'}"}}

    first, second = (alice.post("/models", json=body, headers=KEY) for _ in range(2))

    assert (first.status_code, second.content) == (201, first.content)
    assert count(database, Model) == 1


def test_the_second_tool_gets_200_and_the_job_that_is_there(alice, request_body, database):
    request_body["external_id"] = "DSR-1"
    first = alice.post("/jobs", json=request_body)
    second = alice.post("/jobs", json=request_body | {"seed": 7, "metadata": {"tool": "b"}}, headers=KEY)
    third = alice.post("/jobs", json=request_body | {"seed": 7, "metadata": {"tool": "b"}}, headers=KEY)

    assert (first.status_code, second.status_code, third.status_code) == (202, 200, 200)
    assert "Efface-Existing-Job" not in first.headers
    assert second.headers["Efface-Existing-Job"] == third.headers["Efface-Existing-Job"] == "true"
    assert second.headers["Location"] == first.headers["Location"]
    assert second.json() == first.json()
    assert count(database, Job) == 1


def test_the_client_tells_of_both(alice_client, request_body):
    request_body["external_id"] = "DSR-1"
    first = alice_client.submit(request_body, idempotency_key='a "quoted" \\ key')
    replayed = alice_client.submit(request_body, idempotency_key='a "quoted" \\ key')
    existing = alice_client.submit(request_body)

    assert first.id == replayed.id == existing.id
    assert (first.existing, replayed.existing, existing.existing) == (False, False, True)
