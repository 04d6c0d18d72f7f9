"""Client credentials (RFC 6749, section 4.4), also as a client library that is not ours sends them."""

from base64 import b64encode
from urllib.parse import quote_plus

import httpx
import pytest
from authlib.integrations.httpx_client import OAuth2Client

from services.access import api_keys
from shared.states import Scope
from tests.support.problems import assert_problem

GRANT = {"grant_type": "client_credentials"}


@pytest.fixture
def key(database):
    """A key's id and secret."""
    with database.transaction() as session:
        row, secret = api_keys.create(session, tenant="alice", name="tool", scopes=[Scope.JOBS_READ, Scope.JOBS_WRITE])
        return row.id, secret


@pytest.fixture
def ask(server):
    """Asks for a token."""
    return lambda data=None, **options: httpx.post(f"{server}/oauth/token", data=data, **options)


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


def assert_refused(response, status, error):
    assert (response.status_code, response.json()["error"]) == (status, error), response.text
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
def test_another_librarys_client_gets_in(server, key, method):
    with OAuth2Client(*key, token_endpoint_auth_method=method, base_url=server) as client:
        token = client.fetch_token(f"{server}/oauth/token", grant_type="client_credentials", scope="jobs:read")

        assert token["scope"] == "jobs:read"
        assert client.get(f"{server}/jobs").status_code == 200
        assert client.post(f"{server}/jobs/job_x/cancel").status_code == 403


def test_the_answer_is_as_the_standard_has_it(ask, server, key, settings):
    response = ask(GRANT, auth=key)
    token = response.json()

    assert response.status_code == 200
    assert response.headers["Cache-Control"] == "no-store"
    assert token.pop("access_token").startswith("eft_")
    assert token == {"token_type": "Bearer", "expires_in": settings.token_seconds, "scope": "jobs:read jobs:write"}


@pytest.mark.parametrize("separator", [" ", "+", "%20"])
def test_two_scopes_as_curl_sends_them(ask, key, separator):
    """`curl -d scope='jobs:read jobs:write'` leaves the blank as it is."""
    form = f"grant_type=client_credentials&scope=jobs:read{separator}jobs:write"
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    response = ask(auth=key, content=form, headers=headers)

    assert response.status_code == 200, response.text
    assert response.json()["scope"] == "jobs:read jobs:write"


def test_credentials_by_basic_are_form_encoded_first(ask, key):
    encoded = b64encode(":".join(quote_plus(part) for part in key).encode()).decode()

    assert ask(GRANT, headers={"Authorization": f"Basic {encoded}"}).status_code == 200


def test_a_token_works_for_its_tenant_as_a_key_does(ask, server, key, make_job):
    job_id = make_job.queued()
    token = ask(GRANT, auth=key).json()["access_token"]

    assert httpx.get(f"{server}/jobs/{job_id}", headers=bearer(token)).status_code == 200


def test_an_admin_of_another_tenant_with_a_token_sees_nothing(ask, server, database, make_job):
    job_id = make_job.queued()
    with database.transaction() as session:
        row, secret = api_keys.create(session, tenant="bob", name="admin", scopes=[Scope.ADMIN])
        credentials = (row.id, secret)
    token = ask(GRANT | {"scope": "admin"}, auth=credentials).json()["access_token"]

    assert_problem(httpx.get(f"{server}/jobs/{job_id}", headers=bearer(token)), 404, "not_found")
    assert httpx.get(f"{server}/jobs", headers=bearer(token)).json()["data"] == []
    listed = httpx.get(f"{server}/keys", headers=bearer(token)).json()["data"]
    assert [key["id"] for key in listed] == [credentials[0]]


@pytest.mark.parametrize("scope", ["admin", "models:read", "jobs:read models:read", "everything"])
def test_no_more_than_the_key_may(ask, key, scope):
    assert_refused(ask(GRANT | {"scope": scope}, auth=key), 400, "invalid_scope")


def test_wrong_credentials(ask, key):
    key_id, secret = key
    wrong = [{"auth": (key_id, "efk_x")}, {"auth": ("key_x", secret)}, {"auth": (key_id, "")}, {},
             {"headers": {"Authorization": "Basic !!"}}, {"headers": {"Authorization": "Basic " + "/w=="}},
             {"headers": {"Authorization": f"Bearer {secret}"}}]  # fmt: skip
    for options in wrong:
        response = ask(GRANT, **options)
        assert_refused(response, 401, "invalid_client")
        assert response.headers["WWW-Authenticate"].startswith("Basic")
    assert_refused(ask(GRANT | {"client_id": key_id, "client_secret": "efk_x\0"}), 401, "invalid_client")


@pytest.mark.parametrize(
    ("data", "error"),
    [({}, "invalid_request"), ({"grant_type": "password"}, "unsupported_grant_type"),
     ({"grant_type": ["client_credentials", "client_credentials"]}, "invalid_request")],
)  # fmt: skip
def test_what_is_no_sound_token_request(ask, key, data, error):
    assert_refused(ask(data, auth=key), 400, error)


def test_a_body_that_is_no_form(ask, key):
    for body in (b'{"grant_type": "client_credentials"}', b"\xff\xfe", b"%zz", b""):
        assert_refused(ask(content=body, auth=key), 400, "invalid_request")
    assert_problem(ask(content=b"x" * 9000, auth=key), 413, "too_large")


def test_secrets_in_the_query_are_refused(server, key):
    key_id, secret = key
    query = GRANT | {"client_id": key_id, "client_secret": secret}

    assert_refused(httpx.post(f"{server}/oauth/token", params=query), 400, "invalid_request")
    assert_refused(httpx.post(f"{server}/oauth/token?%zz=\u00e4"), 400, "invalid_request")


def test_a_revoked_keys_tokens_are_dead_at_once(ask, server, key, alice):
    token = ask(GRANT, auth=key).json()["access_token"]
    assert httpx.get(f"{server}/jobs", headers=bearer(token)).status_code == 200
    alice.post(f"/keys/{key[0]}/revoke")

    assert_problem(httpx.get(f"{server}/jobs", headers=bearer(token)), 401, "unauthenticated")
    assert_refused(ask(GRANT, auth=key), 401, "invalid_client")


def test_no_secret_stands_in_the_log(ask, key, logs):
    token = ask(GRANT | {"client_id": key[0], "client_secret": key[1]}).json()["access_token"]

    assert token not in str(logs)
    assert key[1] not in str(logs)
