"""The client against servers that misbehave, each a function of a few lines."""

import json
from datetime import UTC, datetime

import httpx
import pytest

from api import client as module
from api.client import ApiProblem, Client, Damaged, Unreachable

NOW = datetime(2026, 1, 1, tzinfo=UTC).isoformat()


def job(**changes):
    return {
        "object": "job",
        "id": "job_1",
        "state": "running",
        "stage": "forgetting",
        "progress": 0.5,
        "attempt": 1,
        "request": {
            "model": {"id": "mdl_1"},
            "target": {"type": "class", "class": "a", "labels": ["a", "b"]},
            "method": {"name": "synthetic"},
        },
        "thresholds": {},
        "verdict": None,
        "error": None,
        "result_model": None,
        "external_id": None,
        "cancel_requested": False,
        "received_at": NOW,
        "created_at": NOW,
        "started_at": NOW,
        "finished_at": None,
    } | changes


def client_of(app):
    return Client("http://server", "key", transport=httpx.MockTransport(app))


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch):
    monkeypatch.setattr(module, "POLL_SECONDS", 0.0)


def test_the_key_is_sent_and_unknown_fields_are_ignored():
    def app(request):
        assert request.headers["Authorization"] == "Bearer key"
        return httpx.Response(200, json=job(invented_later=True), headers={"ETag": '"7"'})

    assert client_of(app).job("job_1").version == 7


def test_an_id_cannot_leave_its_path():
    def app(request):
        return httpx.Response(200, json=job(id=request.url.raw_path.decode()))

    assert client_of(app).job("../models?x#y").id == "/jobs/..%2Fmodels%3Fx%23y"


def test_a_problem_carries_the_words_of_the_server():
    problem = {"title": "T", "detail": "The field is wrong.", "code": "invalid_request", "errors": [{"detail": "d"}]}

    with pytest.raises(ApiProblem, match=r"The field is wrong\.") as raised:
        client_of(lambda _: httpx.Response(422, json=problem)).job("job_1")

    assert (raised.value.status, raised.value.code, raised.value.errors) == (422, "invalid_request", [{"detail": "d"}])


@pytest.mark.parametrize("body", ["<html>Bad Gateway</html>", "[1]", ""])
def test_a_page_of_a_proxy_is_a_problem_too(body):
    with pytest.raises(ApiProblem, match="the server answered 502"):
        client_of(lambda _: httpx.Response(502, text=body)).job("job_1")


def test_no_server_is_unreachable():
    def app(request):
        raise httpx.ConnectError("refused")

    with pytest.raises(Unreachable, match="refused"):
        client_of(app).job("job_1")


def test_watch_polls_with_the_etag_where_there_is_no_stream():
    answers = iter(
        [
            httpx.Response(200, json=job(state="queued", stage=None), headers={"ETag": '"1"'}),
            httpx.Response(304),
            httpx.Response(200, json=job(state="succeeded", stage=None), headers={"ETag": '"2"'}),
        ]
    )
    tags = []

    def app(request):
        if request.url.path.endswith("/events"):
            return httpx.Response(502)
        tags.append(request.headers.get("If-None-Match"))
        return next(answers)

    assert [seen.state for seen in client_of(app).watch("job_1")] == ["queued", "succeeded"]
    assert tags == [None, '"1"', '"1"']


def test_watch_goes_on_after_the_last_event_it_saw():
    streams = []
    states = iter(["queued", "running", "running", "succeeded"])  # at first, event 5, connected again, event 6

    def app(request):
        if request.url.path.endswith("/events"):
            streams.append(request.headers["Last-Event-ID"])
            event = {"object": "event", "seq": 4 + len(streams), "type": "t", "data": {}, "created_at": NOW}
            text = f": heartbeat\r\n\r\nid: 5\r\ndata: {json.dumps(event)}\r\n\r\n"
            return httpx.Response(200, text=text, headers={"Content-Type": "text/event-stream"})
        return httpx.Response(200, json=job(state=next(states)), headers={"ETag": '"1"'})

    assert [seen.state for seen in client_of(app).watch("job_1")] == ["queued", "running", "running", "succeeded"]
    assert streams == ["0", "5"]


def test_watch_gives_up_when_patience_ends():
    def app(request):
        raise httpx.ConnectError("refused")

    with pytest.raises(Unreachable):
        list(client_of(app).watch("job_1", patience_seconds=0.0))


def test_watch_does_not_wait_for_what_is_refused():
    with pytest.raises(ApiProblem, match="gone"):
        list(client_of(lambda _: httpx.Response(404, json={"detail": "gone"})).watch("job_1"))


def test_a_damaged_download_is_deleted(tmp_path):
    def app(request):
        return httpx.Response(200, content=b"other bytes", headers={"Repr-Digest": "sha-256=:AAAA:"})

    with pytest.raises(Damaged):
        client_of(app).weights("job_1", tmp_path)

    assert list(tmp_path.iterdir()) == []
