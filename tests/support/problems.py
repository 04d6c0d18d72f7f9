"""What every problem that the service answers looks like."""

from typing import Any

import httpx


def assert_problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Assert that a response is this problem, and return its body."""
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert (body["status"], body["code"], body["type"]) == (status, code, f"urn:efface:problem:{code}")
    assert body["instance"] == f"urn:uuid:{response.headers['X-Request-Id']}"
    return body
