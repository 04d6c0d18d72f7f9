"""What happened, as a list and live."""

import contextlib
import threading

import pytest

from api import streams
from shared.states import Stage

LIVE = {"Accept": "text/event-stream"}


def parse(lines):
    """Yield the messages of an event stream as dictionaries; comments under ''."""
    message = {}
    for line in lines:
        if line:
            field, _, value = line.partition(":")
            message[field] = value.strip()
        elif message:
            yield message
            message = {}


@contextlib.contextmanager
def stream(client, job_id, **headers):
    with client.stream("GET", f"/jobs/{job_id}/events", headers=LIVE | headers) as response:
        assert response.headers["Content-Type"].startswith("text/event-stream")
        messages = (message for message in parse(response.iter_lines()) if "id" in message)
        yield messages  # held here: where nobody holds it, the connection is closed
        messages.close()


def test_the_list_goes_on_after_a_seq(alice, make_job):
    job_id = make_job.missed()

    whole = alice.get(f"/jobs/{job_id}/events").json()
    first = alice.get(f"/jobs/{job_id}/events", params={"limit": 2}).json()
    rest = alice.get(f"/jobs/{job_id}/events", params={"after": 2}).json()

    assert [event["type"] for event in whole["data"]] == ["job.queued", "job.started", "job.failed"]
    assert [event["seq"] for event in first["data"]] == [1, 2]
    assert (first["has_more"], rest["has_more"]) == (True, False)
    assert [event["seq"] for event in rest["data"]] == [3]


def test_a_stream_of_a_finished_job_tells_all_and_ends(alice, make_job):
    with stream(alice, make_job.missed()) as messages:
        seen = list(messages)

    assert [(m["id"], m["event"]) for m in seen] == [("1", "job.queued"), ("2", "job.started"), ("3", "job.failed")]


def test_a_stream_is_live_and_ends_with_the_job(alice, make_job):
    job_id = make_job.running()

    with stream(alice, job_id) as messages:
        assert [next(messages)["event"] for _ in range(2)] == ["job.queued", "job.started"]
        make_job.enter(job_id, Stage.FORGETTING)
        assert next(messages)["event"] == "job.stage"
        make_job.step(job_id, 1, 0.5)
        assert next(messages)["event"] == "job.progress"
        make_job.finish(job_id, passed=False)
        assert [message["event"] for message in messages] == ["job.failed"]


@pytest.mark.parametrize("resume", [{"headers": {"Last-Event-ID": "2"}}, {"params": {"after": "2"}}])
def test_a_stream_resumes_after_what_was_seen(alice, make_job, resume):
    headers = LIVE | resume.get("headers", {})
    job_id = make_job.missed()

    with alice.stream("GET", f"/jobs/{job_id}/events", headers=headers, params=resume.get("params")) as response:
        assert [message["id"] for message in parse(response.iter_lines()) if "id" in message] == ["3"]


def test_a_browser_is_told_not_to_reconnect_after_the_end(alice, make_job):
    response = alice.get(f"/jobs/{make_job.missed()}/events", headers=LIVE | {"Last-Event-ID": "3"})

    assert response.status_code == 204


def test_a_stream_after_events_that_never_were_ends_with_the_job(alice, make_job):
    job_id = make_job.running()

    with stream(alice, job_id, **{"Last-Event-ID": "1000"}) as messages:
        make_job.finish(job_id, passed=False)
        assert list(messages) == []


def test_a_stream_sends_heartbeats(alice, make_job, monkeypatch):
    from api.routes import events

    monkeypatch.setattr(events, "HEARTBEAT_SECONDS", 0.1)
    with alice.stream("GET", f"/jobs/{make_job.queued()}/events", headers=LIVE) as response:
        beats = (message for message in parse(response.iter_lines()) if "" in message)
        assert "ping" in next(beats)[""]


@pytest.mark.parametrize("kept", [3, 500])
def test_more_events_than_fit_in_a_batch(alice, make_job, monkeypatch, kept):
    monkeypatch.setattr(streams, "BATCH", 2)
    monkeypatch.setattr(streams, "KEPT", kept)
    job_id = make_job.running()
    for step in range(7):
        make_job.step(job_id, step, step / 7)
    make_job.finish(job_id, passed=False)

    with stream(alice, job_id) as messages:
        assert [int(message["id"]) for message in messages] == list(range(1, 11))


@pytest.mark.parametrize("value", ["x", "-1", str(10**12)])
def test_a_wrong_last_event_id_is_named(alice, make_job, value):
    response = alice.get(f"/jobs/{make_job.queued()}/events", headers=LIVE | {"Last-Event-ID": value})

    assert response.status_code == 422
    assert response.json()["errors"][0]["parameter"] == "last-event-id"


def test_streams_hold_no_connections(alice, make_job, settings):
    job_id = make_job.queued()
    with contextlib.ExitStack() as stack:
        for _ in range(3 * settings.database_pool_size):
            next(stack.enter_context(stream(alice, job_id)))
        assert alice.get(f"/jobs/{job_id}").status_code == 200


def test_the_client_watches_a_job_to_its_end(alice_client, make_job):
    job_id = make_job.running()
    seen = []

    def watch():
        seen.extend((job.state, job.stage, job.progress) for job in alice_client.watch(job_id))

    watcher = threading.Thread(target=watch)
    watcher.start()
    make_job.enter(job_id, Stage.FORGETTING)
    make_job.step(job_id, 1, 0.5)
    make_job.finish(job_id, passed=False)
    watcher.join(20)

    assert seen[-1][0] == "failed"
    assert [event.type for event in alice_client.events(job_id)][-1] == "job.failed"
