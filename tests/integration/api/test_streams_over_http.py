"""Many event streams: what they cost, how many there may be, and when they end."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from sqlalchemy import event, text, update
from sqlalchemy.engine import Engine

from api import streams
from shared.postgres.tables import AccessToken, ApiKey
from shared.states import Stage
from tests.integration.api.test_events_over_http import LIVE, parse, stream

PATIENCE_SECONDS = 30


@contextlib.contextmanager
def counted() -> Iterator[list[str]]:
    """Give the statements of every engine of this process, for as long as the block lasts."""
    seen: list[str] = []

    def note(_connection, _cursor, statement, *_):
        seen.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not true():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.02)


@pytest.fixture
def checks(monkeypatch) -> Callable[[int], None]:
    """Waits until the keys of all streams were looked at so many times more."""
    monkeypatch.setattr(streams, "CHECK_SECONDS", 0.05)
    done = []
    good = streams.Streams._good

    def counting(self, credentials):
        done.append(credentials)
        return good(self, credentials)

    monkeypatch.setattr(streams.Streams, "_good", counting)

    def wait(times: int) -> None:
        goal = len(done) + times
        until(lambda: len(done) >= goal)

    return wait


@pytest.fixture
def server(serve, settings):
    return serve(settings.model_copy(update={"max_streams": 40}))


def cost(client, job_id, checks, number):
    """Return the statements that `number` idle streams cost over ten looks at their keys."""
    with contextlib.ExitStack() as stack:
        for _ in range(number):
            next(stack.enter_context(stream(client, job_id)))
        checks(2)
        with counted() as seen:
            checks(10)
            return len(seen)


def test_idle_streams_cost_no_statement_each(alice, make_job, checks):
    job_id = make_job.queued()
    few, many = cost(alice, job_id, checks, 1), cost(alice, job_id, checks, 40)

    assert few <= 12  # one for each look, and one that was under way
    assert many <= 12


def test_an_event_is_read_once_for_all_who_listen(alice, make_job, monkeypatch):
    job_id = make_job.running()
    with contextlib.ExitStack() as stack:
        listening = [stack.enter_context(stream(alice, job_id)) for _ in range(30)]
        for messages in listening:
            assert [next(messages)["event"] for _ in range(2)] == ["job.queued", "job.started"]
        with counted() as seen:
            make_job.enter(job_id, Stage.FORGETTING)
            for messages in listening:
                assert next(messages)["event"] == "job.stage"
            reads = [
                statement for statement in seen if statement.lstrip().startswith("SELECT") and "job_events" in statement
            ]

    assert len([read for read in reads if "pg_notify" not in read]) <= 3


def test_a_look_that_fails_costs_no_stream_its_events(alice, make_job, monkeypatch):
    """As when Postgres restarts: the connection is lost amid the look that one of them does for all."""
    monkeypatch.setattr(streams, "RETRY_SECONDS", 0.1)
    lost = []

    def lose(_connection, cursor, statement, *_):
        if not lost and statement.lstrip().startswith("SELECT") and "job_events" in statement:
            lost.append(statement)
            cursor.connection.close()

    job_id = make_job.running()
    with stream(alice, job_id) as one, stream(alice, job_id) as other:
        for messages in (one, other):
            assert [next(messages)["event"] for _ in range(2)] == ["job.queued", "job.started"]
        event.listen(Engine, "before_cursor_execute", lose)
        try:
            make_job.enter(job_id, Stage.FORGETTING)
            assert [next(messages)["event"] for messages in (one, other)] == ["job.stage"] * 2
        finally:
            event.remove(Engine, "before_cursor_execute", lose)
    assert len(lost) == 1


def test_one_who_names_a_seq_that_never_was_costs_the_others_nothing(alice, make_job):
    job_id = make_job.running()
    with contextlib.ExitStack() as stack:
        ahead = alice.stream("GET", f"/jobs/{job_id}/events", headers=LIVE | {"Last-Event-ID": "1000"})
        stack.enter_context(ahead)
        listening = [stack.enter_context(stream(alice, job_id)) for _ in range(20)]
        for messages in listening:
            assert [next(messages)["event"] for _ in range(2)] == ["job.queued", "job.started"]
        with counted() as seen:
            make_job.enter(job_id, Stage.FORGETTING)
            for messages in listening:
                assert next(messages)["event"] == "job.stage"
            reads = [text for text in seen if text.lstrip().startswith("SELECT") and "job_events" in text]

    assert len([read for read in reads if "pg_notify" not in read]) <= 5


def test_streams_over_the_limit_are_429_and_closed_ones_make_room(serve, settings, make_key, make_job):
    url = serve(settings.model_copy(update={"max_streams": 2}))
    job_id = make_job.queued()
    with contextlib.ExitStack() as stack:
        alice, same, bob = (
            stack.enter_context(
                httpx.Client(base_url=url, headers={"Authorization": f"Bearer {make_key(tenant)}"}, timeout=20)
            )
            for tenant in ("alice", "alice", "bob")
        )
        held = contextlib.ExitStack()
        for client in (alice, same):
            next(held.enter_context(stream(client, job_id)))
        refused = [client.get(f"/jobs/{job_id}/events", headers=LIVE) for client in (alice, same)]
        listed = alice.get(f"/jobs/{job_id}/events")
        other = bob.get(f"/jobs/{job_id}/events", headers=LIVE)
        held.close()
        until(lambda: _opens(alice, job_id))

    for answer in refused:
        assert answer.status_code == 429
        assert int(answer.headers["Retry-After"]) > 0
        assert answer.json()["violated-policies"] == ["streams"]
    assert (listed.status_code, other.status_code) == (200, 404)


def _opens(client, job_id) -> bool:
    with client.stream("GET", f"/jobs/{job_id}/events", headers=LIVE) as response:
        return response.status_code == 200


def revoke(database, admin, key_id):
    admin.post(f"/keys/{key_id}/revoke")


def expire(database, admin, key_id):
    with database.transaction() as session:
        gone = datetime.now(UTC) - timedelta(seconds=1)
        session.execute(update(ApiKey).where(ApiKey.id == key_id).values(expires_at=gone))


def rotate(database, admin, key_id):
    admin.post(f"/keys/{key_id}/rotate", json={"grace_seconds": 0})


def end_token(database, admin, key_id):
    with database.transaction() as session:
        gone = datetime.now(UTC) - timedelta(seconds=1)
        session.execute(update(AccessToken).where(AccessToken.key_id == key_id).values(expires_at=gone))


@pytest.mark.parametrize(
    ("end", "by_token"),
    [(revoke, False), (expire, False), (rotate, False), (revoke, True), (end_token, True)],
    ids=["revoked", "expired", "rotated", "revoked, by token", "token expired"],
)
def test_a_stream_ends_with_what_opened_it(alice, server, database, make_job, checks, end, by_token):
    job_id = make_job.running()
    made = alice.post("/keys", json={"name": "watcher", "scopes": ["jobs:read"]}).json()
    bearer = made["secret"]
    if by_token:
        form = {"grant_type": "client_credentials"}
        bearer = httpx.post(f"{server}/oauth/token", data=form, auth=(made["id"], bearer)).json()["access_token"]
    headers = {"Authorization": f"Bearer {bearer}"}
    with (
        httpx.Client(base_url=server, headers=headers, timeout=PATIENCE_SECONDS) as watcher,
        stream(watcher, job_id) as messages,
        stream(alice, job_id) as other,
    ):
        for listening in (messages, other):
            assert [next(listening)["event"] for _ in range(2)] == ["job.queued", "job.started"]
        checks(2)
        make_job.enter(job_id, Stage.FORGETTING)
        assert next(messages)["event"] == "job.stage"  # a good key's stream goes on
        end(database, alice, made["id"])

        assert list(messages) == []  # it has ended, though the job has not
        make_job.enter(job_id, Stage.AUDITING)
        assert [next(other)["event"] for _ in range(2)] == ["job.stage", "job.stage"]
        assert watcher.get(f"/jobs/{job_id}/events").status_code == 401


def test_a_stream_ends_after_its_time_and_is_resumed(serve, settings, make_key, make_job):
    url = serve(settings.model_copy(update={"stream_seconds": 0.2}))
    job_id = make_job.running()
    headers = {"Authorization": f"Bearer {make_key()}"}
    with httpx.Client(base_url=url, headers=headers, timeout=PATIENCE_SECONDS) as client:
        with stream(client, job_id) as messages:
            seen = [message["event"] for message in messages]
        make_job.enter(job_id, Stage.FORGETTING)
        with stream(client, job_id, **{"Last-Event-ID": "2"}) as messages:
            resumed = [message["event"] for message in messages]

    assert seen == ["job.queued", "job.started"]
    assert resumed == ["job.stage"]


def test_streams_outlive_the_loss_of_their_connection(alice, make_job, database):
    job_id = make_job.running()
    with stream(alice, job_id) as messages:
        assert [next(messages)["event"] for _ in range(2)] == ["job.queued", "job.started"]
        end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE 'LISTEN efface_events%'"
        with database.look() as connection:
            until(lambda: bool(connection.scalar(text(end))))
        make_job.enter(job_id, Stage.FORGETTING)

        assert next(messages)["event"] == "job.stage"


def test_a_client_that_goes_leaves_nothing(alice, make_job, server):
    job_id = make_job.queued()
    opened = [threading.Thread(target=_glance, args=(alice, job_id)) for _ in range(10)]
    for thread in opened:
        thread.start()
    for thread in opened:
        thread.join()
    with contextlib.ExitStack() as stack:
        for _ in range(40):  # as many as there may be: none of those before is counted any more
            until(lambda: _enters(stack, alice, job_id))


def _glance(client, job_id):
    with client.stream("GET", f"/jobs/{job_id}/events", headers=LIVE) as response:
        next(parse(response.iter_lines()))


def _enters(stack, client, job_id) -> bool:
    response = stack.enter_context(client.stream("GET", f"/jobs/{job_id}/events", headers=LIVE))
    return response.status_code == 200
