"""One key, one piece of work, one answer: also from many threads, over a real Postgres."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from services.access import idempotency
from services.access.idempotency import Answer, Call
from services.jobs import submission
from services.purging import expired_rows
from shared.errors import IdempotencyKeyReused, StillInFlight
from shared.postgres.database import Database
from shared.postgres.tables import IdempotencyKey, Job
from shared.settings import Settings
from tests.support import requests

THREADS = 8


@pytest.fixture
def call(tenant: str) -> Call:
    """A request under a key."""
    return idempotency.call(tenant, "k", method="POST", path="/jobs", payload={"a": 1})


def made() -> Answer:
    return Answer(202, '{"b": 2, "a": 1}', {"Location": "/jobs/1"})


def never() -> Answer:
    raise AssertionError("the work was done twice")


def test_the_second_time_is_answered_with_the_first(database: Database, call: Call) -> None:
    with database.transaction() as session:
        first = idempotency.once(session, call, made, 60)
    with database.transaction() as session:
        second = idempotency.once(session, call, never, 60)
    assert (first, first.replayed) == (made(), False)
    assert (second.status, second.body, second.headers) == (first.status, first.body, first.headers)
    assert second.replayed


def test_without_a_key_work_is_work(session: Session) -> None:
    assert [idempotency.once(session, None, made, 60) for _ in range(2)] == [made(), made()]
    assert session.scalar(select(func.count()).select_from(IdempotencyKey)) == 0


def test_the_fingerprint_knows_tenant_method_path_and_payload_but_no_order_of_fields() -> None:
    def fingerprint(tenant: str = "t", method: str = "POST", path: str = "/jobs", payload: object = None) -> str:
        return idempotency.call(tenant, "k", method=method, path=path, payload=payload).fingerprint

    assert fingerprint(payload={"a": 1, "b": [1, 2]}) == fingerprint(payload={"b": [1, 2], "a": 1})
    others = {
        fingerprint(payload={"a": 1, "b": [2, 1]}),
        fingerprint(payload={"a": "1"}),
        fingerprint(payload={"a": 1}),
        fingerprint(payload={"a": 1}, tenant="u"),
        fingerprint(payload={"a": 1}, method="PUT"),
        fingerprint(payload={"a": 1}, path="/models"),
    }
    assert len(others) == 6


def test_another_request_under_the_key_is_refused(session: Session, tenant: str, call: Call) -> None:
    idempotency.once(session, call, made, 60)
    other = idempotency.call(tenant, "k", method="POST", path="/jobs", payload={"a": 2})
    for ask in (lambda: idempotency.once(session, other, never, 60), lambda: idempotency.kept(session, other)):
        with pytest.raises(IdempotencyKeyReused, match="'k'"):
            ask()


def test_another_tenants_key_of_the_same_name_is_another_key(session: Session, stranger: str, call: Call) -> None:
    idempotency.once(session, call, made, 60)
    theirs = idempotency.call(stranger, "k", method="POST", path="/jobs", payload={"a": 1})
    assert not idempotency.once(session, theirs, made, 60).replayed


def test_what_was_refused_leaves_the_key_free(database: Database, call: Call) -> None:
    def refuse() -> Answer:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), database.transaction() as session:
        idempotency.once(session, call, refuse, 60)
    with database.transaction() as session:
        assert not idempotency.once(session, call, made, 60).replayed


def test_an_expired_answer_is_forgotten_before_and_after_it_is_swept(
    session: Session, call: Call, settings: Settings
) -> None:
    idempotency.once(session, call, made, -1)
    assert not idempotency.once(session, call, made, -1).replayed
    assert session.scalar(select(func.count()).select_from(IdempotencyKey)) == 1
    expired_rows.sweep(session, settings)
    assert session.scalar(select(func.count()).select_from(IdempotencyKey)) == 0
    idempotency.once(session, call, made, 60)
    expired_rows.sweep(session, settings)
    assert idempotency.kept(session, call) is not None


def test_while_the_first_is_in_flight_the_second_is_told_so(database: Database, call: Call) -> None:
    with database.transaction() as session:
        idempotency.once(session, call, made, 60)
        with pytest.raises(StillInFlight), database.transaction() as other:
            idempotency.once(other, call, never, 60)
    with database.transaction() as other:
        assert idempotency.once(other, call, never, 60).replayed


def test_the_same_request_from_many_threads_makes_one_job(
    database: Database, tenant: str, settings: Settings, clip: object
) -> None:
    request = requests.names_only(clip)  # type: ignore[arg-type]
    call = idempotency.call(tenant, "k", method="POST", path="/jobs", payload=request.model_dump(mode="json"))
    together = threading.Barrier(THREADS)

    def post(_: int) -> Answer | None:
        together.wait(30)
        with database.transaction() as session:

            def submit() -> Answer:
                return Answer(202, submission.submit(session, tenant, request, settings).model_dump_json(), {})

            try:
                return idempotency.once(session, call, submit, 60)
            except StillInFlight:
                return None

    with ThreadPoolExecutor(THREADS) as pool:
        answers = list(pool.map(post, range(THREADS)))
    given = [answer for answer in answers if answer is not None]
    assert len([answer for answer in given if not answer.replayed]) == 1
    assert len({answer.body for answer in given}) == 1
    with database.transaction() as session:
        assert session.scalar(select(func.count()).select_from(Job)) == 1
