"""Keys of one's own tenant, over HTTP. Who may not is in test_every_route."""

from datetime import UTC, datetime, timedelta

import httpx
import pytest

from shared.states import Scope
from tests.support.problems import assert_problem


@pytest.fixture
def made(alice):
    """A key that may look at jobs."""
    response = alice.post("/keys", json={"name": "dashboard", "scopes": ["jobs:read"]})
    assert response.status_code == 201
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["Location"] == f"/keys/{response.json()['id']}"
    return response.json()


def status_with(server, secret, path="/jobs"):
    return httpx.get(server + path, headers={"Authorization": f"Bearer {secret}"}).status_code


def test_a_key_is_made_for_the_callers_tenant(alice, server, made, make_job):
    job_id = make_job.queued()

    assert status_with(server, made["secret"], f"/jobs/{job_id}") == 200
    assert status_with(server, made["secret"], "/models") == 403


def test_the_secret_is_shown_once(alice, made):
    one = alice.get(f"/keys/{made['id']}").json()
    listed = alice.get("/keys").json()["data"]

    assert one == {name: value for name, value in made.items() if name != "secret"}
    assert one in listed
    assert made["secret"] not in str(listed)


def test_rotation_lets_the_old_secret_work_for_a_while(alice, server, made):
    rotated = alice.post(f"/keys/{made['id']}/rotate", json={"grace_seconds": 600})
    new = rotated.json()

    assert (rotated.status_code, rotated.headers["Cache-Control"]) == (200, "no-store")
    assert new["id"] == made["id"]
    assert new["secret"] != made["secret"]
    left = datetime.fromisoformat(new["previous_expires_at"]) - datetime.now(UTC)
    assert timedelta(seconds=500) < left <= timedelta(seconds=600)
    assert [status_with(server, key["secret"]) for key in (made, new)] == [200, 200]


def test_rotation_without_grace_ends_the_old_secret(alice, server, made):
    new = alice.post(f"/keys/{made['id']}/rotate", json={"grace_seconds": 0}).json()

    assert [status_with(server, key["secret"]) for key in (made, new)] == [401, 200]


def test_the_operators_grace_is_the_default(alice, made, settings):
    new = alice.post(f"/keys/{made['id']}/rotate", json={}).json()

    left = (datetime.fromisoformat(new["previous_expires_at"]) - datetime.now(UTC)).total_seconds()
    assert settings.key_grace_seconds - 60 < left <= settings.key_grace_seconds


def test_a_revoked_key_is_dead_and_stays_in_the_list(alice, server, made):
    first, second = (alice.post(f"/keys/{made['id']}/revoke") for _ in range(2))

    assert status_with(server, made["secret"]) == 401
    assert first.json()["revoked_at"] == second.json()["revoked_at"] is not None
    assert_problem(alice.post(f"/keys/{made['id']}/rotate", json={}), 409, "conflict")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"scopes": ["jobs:read"]}, "/name"),
        ({"name": "x", "scopes": []}, "/scopes"),
        ({"name": "x", "scopes": ["everything"]}, "/scopes/0"),
        ({"name": "x\ny", "scopes": ["admin"]}, "/name"),
        ({"name": "x", "scopes": ["admin"], "expires_at": "2020-01-01T00:00:00Z"}, "/expires_at"),
        ({"name": "x", "scopes": ["admin"], "expires_at": "2099-01-01T00:00:00"}, "/expires_at"),
        ({"name": "x", "scopes": ["admin"], "tenant": "bob"}, "/tenant"),
    ],
)
def test_a_wrong_field_is_named(alice, body, pointer):
    errors = assert_problem(alice.post("/keys", json=body), 422, "invalid_request")["errors"]

    assert [error["pointer"] for error in errors] == [pointer]


@pytest.mark.parametrize(
    "body", [{"grace_seconds": -1}, {"grace_seconds": 10**9}, {"expires_at": "2020-01-01T00:00:00Z"}]
)
def test_a_wrong_rotation_changes_nothing(alice, server, made, body):
    response = alice.post(f"/keys/{made['id']}/rotate", json=body)

    assert_problem(response, 422, "invalid_request")
    assert alice.get(f"/keys/{made['id']}").json()["previous_expires_at"] is None
    assert status_with(server, made["secret"]) == 200


def test_a_stolen_admin_key_goes_with_what_it_made(alice, server, made):
    stolen = alice.post("/keys", json={"name": "stolen", "scopes": ["admin"]}).json()
    thief = httpx.Client(base_url=server, headers={"Authorization": f"Bearer {stolen['secret']}"})
    token = thief.post("/oauth/token", auth=(stolen["id"], stolen["secret"]), data={"grant_type": "client_credentials"})
    by_token = {"Authorization": f"Bearer {token.json()['access_token']}"}
    backdoor = httpx.post(f"{server}/keys", json={"name": "backdoor", "scopes": ["admin"]}, headers=by_token).json()
    taken = thief.post(f"/keys/{made['id']}/rotate", json={"grace_seconds": 0}).json()
    assert (backdoor["made_by"], taken["rotated_by"]) == (stolen["id"], stolen["id"])

    gone = alice.post(f"/keys/{stolen['id']}/revoke").json()
    assert gone["revoked_at"] is not None
    assert [status_with(server, key["secret"]) for key in (stolen, backdoor, taken)] == [401, 200, 200]
    again = alice.post(f"/keys/{stolen['id']}/revoke", params={"with_children": "true"}).json()
    assert again == gone
    assert [status_with(server, key["secret"]) for key in (stolen, backdoor, taken)] == [401, 401, 401]
    assert alice.get("/keys").status_code == 200


def test_figures_of_the_deployment_need_a_scope_of_their_own(connect):
    for scopes, status in (((Scope.JOBS_READ,), 403), ((Scope.METRICS_READ,), 200), ((Scope.ADMIN,), 200)):
        assert connect("alice", scopes=scopes).get("/metrics").status_code == status
    problem = assert_problem(connect("alice", scopes=(Scope.DATASETS_WRITE,)).get("/metrics"), 403, "forbidden")
    assert "metrics:read" in problem["detail"]
