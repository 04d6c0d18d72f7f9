"""Limits on requests and jobs: headers, 429, several servers, and Redis away."""

import http_sf
import httpx
import pytest
from pydantic import SecretStr

from shared.ports.embedded_servers import free_port


@pytest.fixture
def limited(settings):
    """Four requests in ten minutes, one unfinished job."""
    changes = {"rate_limit_requests": 4, "rate_limit_seconds": 600, "max_unfinished_jobs": 1}
    return settings.model_copy(update=changes)


@pytest.fixture
def bearer(make_key):
    return {"Authorization": f"Bearer {make_key()}"}


def fields(response):
    """Return both headers, read by the library: name -> parameters."""
    read = (http_sf.parse(response.headers[name].encode(), tltype="list") for name in ("RateLimit-Policy", "RateLimit"))
    return [dict(items) for items in read]


def assert_quota_exceeded(response, policy):
    assert response.status_code == 429, response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    body = response.json()
    assert body["type"] == "https://iana.org/assignments/http-problem-types#quota-exceeded"
    assert (body["status"], body["code"], body["violated-policies"]) == (429, "quota_exceeded", [policy])
    assert int(response.headers["Retry-After"]) > 0


def test_the_headers_say_how_a_tenant_stands(alice, settings):
    first, second = alice.get("/jobs"), alice.get("/jobs/job_none")

    policy, left = fields(first)
    assert policy == {
        "requests": {"q": settings.rate_limit_requests, "w": settings.rate_limit_seconds},
        "jobs": {"q": settings.max_unfinished_jobs, "qu": "concurrent-requests"},
        "streams": {"q": settings.max_streams, "qu": "concurrent-requests"},
    }
    assert left["requests"]["r"] == settings.rate_limit_requests - 1
    assert 0 < left["requests"]["t"] <= settings.rate_limit_seconds
    assert fields(second)[1]["requests"]["r"] == settings.rate_limit_requests - 2


def test_the_limit_is_shared_by_servers_and_by_all_keys_of_a_tenant(serve, limited, bearer, make_key):
    one, other = serve(limited), serve(limited)
    second_key = {"Authorization": f"Bearer {make_key()}"}

    taken = [httpx.get(f"{url}/jobs", headers=key) for url in (one, other) for key in (bearer, second_key)]
    refused = [httpx.get(f"{url}/jobs", headers=bearer) for url in (one, other)]
    someone_else = httpx.get(f"{one}/jobs", headers={"Authorization": f"Bearer {make_key('bob')}"})

    assert [response.status_code for response in taken] == [200] * 4
    assert [fields(response)[1]["requests"]["r"] for response in taken] == [3, 2, 1, 0]
    for response in refused:
        assert_quota_exceeded(response, "requests")
        assert fields(response)[1]["requests"]["r"] == 0
    assert someone_else.status_code == 200


def test_health_and_strangers_are_not_counted(serve, limited, bearer):
    url = serve(limited)
    for _ in range(6):
        assert httpx.get(f"{url}/health/live").status_code == 200
        assert httpx.get(f"{url}/jobs").status_code == 401

    assert fields(httpx.get(f"{url}/jobs", headers=bearer))[1]["requests"]["r"] == 3


def test_token_requests_are_counted(serve, limited, make_key, database):
    url = serve(limited)
    secret = make_key()
    listed = httpx.get(f"{url}/keys", headers={"Authorization": f"Bearer {secret}"}).json()["data"]
    form = {"grant_type": "client_credentials"}
    answers = [httpx.post(f"{url}/oauth/token", data=form, auth=(listed[0]["id"], secret)) for _ in range(4)]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert fields(answers[0])[1]["requests"]["r"] == 2
    assert_quota_exceeded(answers[3], "requests")


def test_jobs_over_the_limit_are_429(serve, limited, bearer, request_body):
    url = serve(limited)
    first, second = (httpx.post(f"{url}/jobs", json=request_body, headers=bearer) for _ in range(2))
    httpx.post(f"{url}/jobs/{first.json()['id']}/cancel", headers=bearer)
    third = httpx.post(f"{url}/jobs", json=request_body, headers=bearer)

    assert (first.status_code, third.status_code) == (202, 202)
    assert_quota_exceeded(second, "jobs")


def test_without_redis_requests_are_let_in(serve, limited, bearer, logs):
    url = serve(limited.model_copy(update={"redis_url": SecretStr(f"redis://127.0.0.1:{free_port()}/0")}))

    answers = [httpx.get(f"{url}/jobs", headers=bearer) for _ in range(6)]

    assert [answer.status_code for answer in answers] == [200] * 6
    assert "RateLimit" not in answers[0].headers
    assert "RateLimit-Policy" in answers[0].headers
    assert [line["log_level"] for line in logs if line["event"] == "rate_limit.redis_away"] == ["warning"]


def test_limits_that_are_off_say_nothing(serve, settings, bearer):
    url = serve(settings.model_copy(update={"rate_limit_requests": 0, "max_unfinished_jobs": 0, "max_streams": 0}))
    response = httpx.get(f"{url}/jobs", headers=bearer)

    assert not {"RateLimit", "RateLimit-Policy"} & set(response.headers)
