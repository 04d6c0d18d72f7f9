"""Hold, release, extend and refuse, over HTTP and from the command line."""

import pytest
from typer.testing import CliRunner

from api.cli import app
from api.cli.exits import explain
from api.client import ApiProblem
from api.examples import EXTENSION, HOLD, REFUSAL
from tests.integration.api.test_access import assert_problem

BODIES = {
    "hold": {"reason": "identity in doubt"},
    "release": None,
    "extend": {"reason": "complexity"},
    "refuse": {"ground": "legal_claims", "detail": "a case is pending"},
}


def rule(client, job_id, verb, **changes):
    body = BODIES[verb]
    return client.post(f"/jobs/{job_id}/{verb}", **({} if body is None else {"json": body | changes}))


def test_from_hold_to_refusal(alice, make_job):
    job_id = make_job.queued(received_at="2026-11-02T09:00:00Z")

    held = rule(alice, job_id, "hold").json()
    assert held["hold"]["reason"] == "identity in doubt"
    assert held["due_at"] == "2026-12-02T23:59:59Z"
    assert rule(alice, job_id, "release").json()["hold"] is None
    refused = rule(alice, job_id, "refuse").json()
    assert (refused["state"], refused["refusal"]["ground"]) == ("cancelled", "legal_claims")
    assert alice.get(f"/jobs/{job_id}").json() == refused


def test_an_extension_moves_the_due_date(alice, make_job):
    job_id = make_job.queued()
    before = alice.get(f"/jobs/{job_id}").json()["due_at"]

    extended = rule(alice, job_id, "extend").json()

    assert extended["extension"]["reason"] == "complexity"
    assert extended["due_at"] > before


def test_a_job_can_be_on_hold_from_the_start(alice, request_body):
    response = alice.post("/jobs", json=request_body, params={"hold": "proof was asked for"})

    assert response.status_code == 202
    assert response.json()["hold"]["reason"] == "proof was asked for"
    checked = alice.post("/jobs", json=request_body, params={"hold": "x", "validate_only": True})
    assert checked.json()["hold"] is None


@pytest.mark.parametrize(
    ("verb", "reach", "words"),
    [("hold", "running", "only one that is queued"), ("release", "queued", "not on hold"),
     ("extend", "succeeded", "it is succeeded"), ("refuse", "missed", "it is failed")],
)  # fmt: skip
def test_a_wrong_state_is_409(alice, make_job, verb, reach, words):
    job_id = getattr(make_job, reach)()

    assert words in assert_problem(rule(alice, job_id, verb), 409, "conflict")["detail"]


@pytest.mark.parametrize(
    ("verb", "body", "pointer"),
    [
        ("hold", {}, "/reason"),
        ("hold", {"reason": ""}, "/reason"),
        ("hold", {"reason": "a\nb"}, "/reason"),
        ("hold", {"reason": "x" * 501}, "/reason"),
        ("extend", {"reason": 5}, "/reason"),
        ("refuse", {"ground": "no_time"}, "/ground"),
        ("refuse", {"ground": "excessive", "why": "x"}, "/why"),
    ],
)
def test_wrong_fields_are_named(alice, make_job, verb, body, pointer):
    response = alice.post(f"/jobs/{make_job.queued()}/{verb}", json=body)

    assert [e["pointer"] for e in assert_problem(response, 422, "invalid_request")["errors"]] == [pointer]


def test_another_tenants_job_is_not_there(bob, make_job):
    job_id = make_job.queued()

    for verb in BODIES:
        assert_problem(rule(bob, job_id, verb), 404, "not_found")


def test_commands(server, make_key, make_job):
    job_id = make_job.queued(received_at="2026-11-02T09:00:00Z")
    options = ["--url", server, "--key", make_key("alice")]

    def run(*words):
        return CliRunner().invoke(app, [*words, *options])

    assert run("hold", job_id, "--reason", "in doubt").output == f"{job_id} is on hold\n"
    assert "2026-12-02 23:59:59" in run("release", job_id).output
    again = run("release", job_id)
    assert isinstance(again.exception, ApiProblem)
    assert explain(again.exception)[1] == 1
    assert run("refuse", job_id, "--ground", "excessive").output == f"{job_id} is refused\n"
    unknown = run("refuse", job_id, "--ground", "no_time")
    assert unknown.exception is not None
    assert explain(unknown.exception)[1] == 2


@pytest.mark.parametrize(("verb", "examples"), [("hold", HOLD), ("extend", EXTENSION), ("refuse", REFUSAL)])
def test_the_examples_of_the_documentation_are_sound(alice, make_job, verb, examples):
    for example in examples.values():
        assert alice.post(f"/jobs/{make_job.queued()}/{verb}", json=example["value"]).status_code == 200
