"""Every route of the OpenAPI document takes the query parameters that it declares, each once, none empty, and no other."""

import httpx
import pytest
from sqlalchemy import func, select

from shared.postgres.tables import Job
from tests.integration.api.test_every_route import NOTHING, ROUTES, Route, World, every, world
from tests.support.problems import assert_problem

__all__ = ["world"]

GETS = [route for route in ROUTES if route.method == "get"]


def declared(route: Route) -> list[str]:
    return [entry["name"] for entry in route.operation.get("parameters", []) if entry["in"] == "query"]


SINGLE = [route for route in ROUTES if declared(route)]


@pytest.fixture(scope="module")
def alice(world: World):
    with world.connect("alice") as client:
        yield client


def ask(client: httpx.Client, route: Route, query: str, **headers: str) -> httpx.Response:
    return client.request(route.method, route.path.format_map(NOTHING) + query, headers=headers, **route.body)


def said(route: Route, response: httpx.Response) -> str:
    """Return what an answer says is wrong, in the form that its route has for errors."""
    if route.path == "/oauth/token":
        assert (response.status_code, response.json()["error"]) == (400, "invalid_request")
        return response.json()["error_description"]
    if route.path.startswith("/opendsr"):
        assert_problem(response, 400, "invalid_request")
        assert response.json()["error"]["code"] == 400
        assert "X-OpenDSR-Signature" in response.headers
    else:
        assert_problem(response, 422, "invalid_request")
    return response.json()["detail"]


@every(ROUTES)
def test_an_unknown_parameter_is_named_with_those_that_there_are(alice, route):
    detail = said(route, ask(alice, route, "?surprise=true"))

    assert "query parameter 'surprise' is not known here" in detail
    for name in declared(route):
        assert name in detail
    assert declared(route) or "takes none" in detail


@every(SINGLE)
def test_a_repeated_and_an_empty_parameter_are_named(alice, route):
    name = declared(route)[0]

    assert f"query parameter {name} is given 2 times" in said(route, ask(alice, route, f"?{name}=1&{name}=1"))
    assert f"query parameter {name} is empty" in said(route, ask(alice, route, f"?{name}="))
    assert f"query parameter {name} is empty" in said(route, ask(alice, route, f"?{name}"))


@pytest.mark.parametrize("query", ["validateOnly=true", "validate-only=true", "dry_run=true", "VALIDATE_ONLY=true"])
def test_a_misspelt_validate_only_makes_no_job(alice, world, query):
    def count():
        with world.database.transaction() as session:
            return session.scalar(select(func.count()).select_from(Job))

    before = count()
    response = alice.post(f"/jobs?{query}", json=world.jobs.request)

    problem = assert_problem(response, 422, "invalid_request")
    assert problem["errors"][0]["parameter"] == query.partition("=")[0]
    assert ("did you mean validate_only?" in problem["detail"]) == (query != "dry_run=true")
    assert count() == before


def test_the_answer_does_not_grow_with_the_query(alice):
    query = "&".join(f"{'x' * 20}{number}=1" for number in range(2000))
    problem = assert_problem(alice.get(f"/jobs?{query}"), 422, "invalid_request")

    assert (len(problem["errors"]), problem["more_errors"]) == (20, 1980)
    assert problem["detail"].endswith("and 1,980 more")


def test_an_unknown_method_is_no_filter(alice):
    assert_problem(alice.get("/jobs?method=magic"), 422, "invalid_request")


@every(GETS)
def test_head_is_get_without_a_body(alice, world, route):
    path = route.path.format_map(world.things(alice) if "{" in route.path else {})
    with world.connect("alice") as client:
        got, head, again = client.get(path), client.head(path), client.get(path)

    assert head.status_code == got.status_code
    assert head.content == b""
    assert head.headers["Content-Type"] == got.headers["Content-Type"]
    if got.headers.get("Content-Length") == again.headers.get("Content-Length") and "ready" not in path:
        same = "metrics" not in path and head.status_code == 200
        assert not same or head.headers["Content-Length"] == got.headers["Content-Length"]
    assert again.status_code == got.status_code


def test_head_where_there_is_no_get_and_of_a_stream(alice, world):
    job = world.jobs.queued()
    other = alice.head(f"/jobs/{job}/cancel")
    stream = alice.head(f"/jobs/{job}/events", headers={"Accept": "text/event-stream"})

    assert (other.status_code, other.headers["Allow"]) == (405, "POST")
    assert stream.status_code == 405


def test_head_of_weights_tells_their_size_and_is_no_fetch(alice, world):
    things = world.things(alice)
    job = alice.get(f"/jobs/{things['job_id']}").json()
    path = f"/jobs/{job['id']}/weights"
    head = alice.head(path)
    fetches = alice.get(f"/models/{job['result_model']}/fetches").json()["data"]
    part = alice.head(path, headers={"Range": "bytes=10-19"})
    whole = alice.get(path)

    assert (head.status_code, head.headers["Accept-Ranges"]) == (200, "bytes")
    assert fetches == []
    assert (part.status_code, part.headers["Content-Length"]) == (206, "10")
    for name in ("ETag", "Content-Length", "Repr-Digest"):
        assert head.headers[name] == whole.headers[name]
    assert len(alice.get(f"/models/{job['result_model']}/fetches").json()["data"]) == 1
