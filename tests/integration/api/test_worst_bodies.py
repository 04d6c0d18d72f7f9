"""What a body costs is bounded by its size: the worst of every kind on every route, beside a plain one of the same size.

The bodies are those of `benchmarks.worst_bodies`, which prints the table. Processor time is counted, not time that passes.
"""

import json
import time
from collections.abc import Iterator

import httpx
import pytest
from structlog.testing import capture_logs

from api.app import create_app
from benchmarks.worst_bodies import FLOOR_SECONDS, KINDS, LIMIT, Body, Target, plain, ratio, send, targets
from services.access import api_keys
from shared.settings import Settings
from shared.states import Scope
from tests.integration.api.conftest import sound_request
from tests.support.parts import PROCESSOR_DOMAIN, emptied_database, make_settings
from tests.support.servers import serving

SIZE = 1_000_000
TRIES = 4
"""A measurement is repeated before it is believed: other processes disturb the caches of this one."""
MAX_ANSWER_BYTES = 20_000

TARGETS = list(targets(create_app(Settings(_env_file=None)).openapi()))  # type: ignore[call-arg]


@pytest.fixture(scope="module")
def alice(postgres_url, redis_server, tmp_path_factory) -> Iterator[httpx.Client]:
    settings = make_settings(postgres_url, redis_server, tmp_path_factory.mktemp("worst_bodies"))
    with emptied_database(settings) as database, capture_logs(), serving(settings) as url:
        sound_request(database)
        with database.transaction() as session:
            key = api_keys.create(session, tenant="alice", name="test", scopes=[Scope.ADMIN])[1]
        with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=60) as client:
            yield client


def cost(client: httpx.Client, target: Target, body: Body) -> tuple[float, httpx.Response]:
    before = time.process_time()
    answer = send(client, target, body)
    return time.process_time() - before, answer


def worst_of(client: httpx.Client, target: Target, body: Body, usual: float) -> float:
    """Return the ratio of a body that is refused with an answer of bounded size."""
    found = float("inf")
    for _ in range(TRIES):
        seconds, answer = cost(client, target, body)
        assert 400 <= answer.status_code < 500, answer.text[:500]
        assert len(answer.content) <= MAX_ANSWER_BYTES
        found = min(found, ratio(seconds, usual))
        if found <= LIMIT:
            break
    return found


@pytest.mark.parametrize("target", TARGETS, ids=[f"{target.method} {target.path}" for target in TARGETS])
def test_no_body_costs_more_than_three_plain_ones(alice, target):
    usual = max(cost(alice, target, plain(target.example, SIZE))[0] for _ in range(2))
    found = {kind: worst_of(alice, target, build(target.example, SIZE), usual) for kind, build in KINDS.items()}

    assert {kind: round(times, 1) for kind, times in found.items() if times > LIMIT} == {}


def test_nor_does_what_stands_in_an_extension(alice):
    """OpenDSR's extension is the body of POST /jobs, and is read after everything else."""
    (jobs,) = (target for target in TARGETS if target.path == "/jobs")
    target = next(target for target in TARGETS if target.path == "/opendsr/v2/requests")

    def around(body: Body) -> Body:
        sound = json.dumps(target.example | {"extensions": {PROCESSOR_DOMAIN: "HERE"}}).encode()
        return Body(sound.replace(b'"HERE"', body.content), body.headers)

    kinds = [kind for kind in KINDS if kind != "packed blanks"]
    usual = max(cost(alice, target, around(plain(jobs.example, SIZE - 1000)))[0] for _ in range(2))
    found = {kind: worst_of(alice, target, around(KINDS[kind](jobs.example, SIZE - 1000)), usual) for kind in kinds}

    assert {kind: round(times, 1) for kind, times in found.items() if times > LIMIT} == {}


def test_a_key_without_the_scope_is_refused_before_its_body_is_read(alice, server_of_a_reader):
    (jobs,) = (target for target in TARGETS if target.path == "/jobs")
    body = KINDS["fields twice"](jobs.example, SIZE)
    answers = [cost(server_of_a_reader, jobs, body) for _ in range(3)]

    assert {answer.status_code for _, answer in answers} == {403}
    assert min(seconds for seconds, _ in answers) < FLOOR_SECONDS


@pytest.fixture
def server_of_a_reader(alice) -> Iterator[httpx.Client]:
    secret = alice.post("/keys", json={"name": "reader", "scopes": ["datasets:read"]}).json()["secret"]
    headers = {"Authorization": f"Bearer {secret}"}
    with httpx.Client(base_url=alice.base_url, headers=headers, timeout=60) as client:
        yield client


@pytest.mark.parametrize(
    ("change", "first"),
    [
        ({"labels": [1] * 900}, {"pointer": "/target/labels/0", "detail": "must be a valid string, but is 1"}),
        ({f"f{number}": 1 for number in range(900)}, None),
    ],
    ids=["wrong labels", "unknown fields"],
)
def test_twenty_errors_are_told_and_the_rest_are_counted(alice, change, first):
    body = {"model": {"id": "mdl_alice"}, "method": {"name": "synthetic"}}
    target = {"type": "class", "class": "horse", "labels": ["horse", "cow"]}
    problem = alice.post("/jobs", json=body | {"target": target | change}).json()

    assert len(problem["errors"]) == 20
    assert problem["more_errors"] in (880, 881)  # pydantic also counts a list in which nothing was right
    assert problem["detail"].endswith(f"and {problem['more_errors']} more")
    assert first is None or problem["errors"][0] == first


@pytest.mark.parametrize("number", [8000, 200_000])
def test_a_list_that_is_too_long_is_named_and_not_its_items(alice, number):
    body = {"target": {"type": "class", "class": "horse", "labels": [1] * number}}
    problem = alice.post("/jobs", json=body).json()

    (error,) = problem["errors"]
    if number == 8000:
        assert error["pointer"] == "/target/labels"
        assert "at most 1000 items" in error["detail"]
    else:
        assert "more than 50,000 values" in error["detail"]
