"""Real calls to a real receiver on loopback: what was committed arrives, signed, and is tried again as it should be."""

import base64
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, tzinfo
from email.utils import format_datetime
from ipaddress import ip_network

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import SecretStr
from sqlalchemy import TextClause, func, select, text, update
from standardwebhooks.webhooks import Webhook as Verifier
from standardwebhooks.webhooks import WebhookVerificationError

from services.jobs import ending as job_ending
from services.jobs import events, lifecycle, queries
from services.purging import expired_rows
from services.webhooks import deliveries, endpoints
from services.webhooks.sender import Courier
from shared.errors import Conflict, NotFound
from shared.postgres.database import Database
from shared.postgres.tables import Webhook, WebhookDelivery, WebhookSecret
from shared.schemas.webhook import DeliveryView, WebhookRegistration, WebhookWithSecret
from shared.settings import Settings
from shared.states import CallKind, DeliveryState, JobState, Stage
from tests.support.fleet import wait_until
from tests.support.receiver import Receiver, receiving
from tests.support.world import World, passed

PENDING, DELIVERED, FAILED = DeliveryState.PENDING, DeliveryState.DELIVERED, DeliveryState.FAILED


class Post:
    """A receiver that is registered, jobs that end, and what becomes of the calls."""

    def __init__(self, database: Database, tenant: str, settings: Settings, receiver: Receiver) -> None:
        self.database, self.tenant, self.settings, self.receiver = database, tenant, settings, receiver
        self.webhook = self.register()

    def register(self, **changes: object) -> WebhookWithSecret:
        wanted = WebhookRegistration.model_validate({"url": self.receiver.url} | changes)
        with self.database.transaction() as session:
            return endpoints.register(session, self.tenant, wanted, self.settings)

    def log(self) -> list[DeliveryView]:
        """Return the delivery log, newest first."""
        with self.database.transaction() as session:
            return list(deliveries.list_page(session, self.tenant, self.webhook.id).data)

    def only(self) -> DeliveryView:
        (delivery,) = self.log()
        return delivery

    def hurry(self) -> None:
        """Let the time until the next tries pass."""
        with self.database.transaction() as session:
            now = func.clock_timestamp()
            session.execute(update(WebhookDelivery).where(WebhookDelivery.state == PENDING).values(next_attempt_at=now))
            session.execute(update(Webhook).values(paused_until=None))

    def tried(self, times: int) -> DeliveryView:
        """Return the only delivery, once it was tried so often."""
        wait_until(lambda: len(self.only().attempts) == times, f"no try {times}")
        return self.only()

    def replay(self) -> None:
        with self.database.transaction() as session:
            deliveries.replay(session, self.tenant, self.webhook.id, self.only().id)

    def rotate(self, settings: Settings | None = None) -> WebhookWithSecret:
        with self.database.transaction() as session:
            return endpoints.rotate(session, self.tenant, self.webhook.id, settings or self.settings)

    def verified(self, secret: str, call: int = -1) -> dict[str, object]:
        """Return a body as another implementation reads it, which raises unless the signature is right."""
        received = self.receiver.calls[call]
        return dict(Verifier(secret).verify(received.body, dict(received.headers)))


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


@pytest.fixture
def post(database: Database, tenant: str, settings: Settings, receiver: Receiver) -> Post:
    """A registered receiver, on a network that the operator allows."""
    settings.webhook_allow_networks.append(ip_network("127.0.0.0/8"))
    return Post(database, tenant, settings, receiver)


@pytest.fixture
def start(post: Post) -> Iterator[Callable[..., None]]:
    """Starts couriers."""
    stop, threads = threading.Event(), []

    def start_courier(settings: Settings | None = None) -> None:
        threads.append(threading.Thread(target=Courier(post.database, settings or post.settings).work, args=(stop,)))
        threads[-1].start()

    yield start_courier
    stop.set()
    for thread in threads:
        thread.join(30)


@pytest.fixture
def courier(start: Callable[..., None]) -> None:
    """A courier is at work."""
    start()


@pytest.fixture
def cancelled(post: Post, submit: Callable[..., str]) -> Callable[[], str]:
    """Cancels a job, which is the cheapest event that is delivered."""

    def cancel() -> str:
        job = submit(external_id="jane.doe@example.com")
        with post.database.transaction() as session:
            job_ending.cancel(session, post.tenant, job)
        return job

    return cancel


@pytest.mark.usefixtures("courier")
def test_the_end_of_a_job_arrives_signed_both_ways(post: Post, submit: Callable[..., str]) -> None:
    world = World(post.database, post.tenant, submit(external_id="DSR-7", metadata={"name": "jane"}))
    world.claim()
    world.do(lifecycle.enter_stage, 1, Stage.FORGETTING)
    world.do(lifecycle.complete, 1, passed(world, 1))
    delivery = post.tried(1)
    (call,) = post.receiver.calls
    body = post.verified(post.webhook.secret)
    assert body["type"] == "job.succeeded"
    assert body["data"] == {
        "job": world.job,
        "external_id": "DSR-7",
        "state": "succeeded",
        "event": 4,
        "verdict": "passed",
        "error": None,
        "result_model": world.view().result_model,
    }
    assert b"jane" not in call.body
    assert call.headers["content-type"] == "application/json"
    assert (delivery.state, delivery.id, delivery.body) == (DELIVERED, call.headers["webhook-id"], body)
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(post.webhook.public_key.removeprefix("whpk_")))
    signature = next(s for s in call.headers["webhook-signature"].split(" ") if s.startswith("v1a,"))
    signed = f"{delivery.id}.{call.headers['webhook-timestamp']}.".encode() + call.body
    key.verify(base64.b64decode(signature.removeprefix("v1a,")), signed)


@pytest.mark.usefixtures("courier")
def test_after_a_failure_the_same_call_is_made_again(post: Post, cancelled: Callable[[], str]) -> None:
    post.receiver.answers = [(500, {}), (404, {})]
    cancelled()
    for times, pause in ((1, 5), (2, 300)):
        failed = post.tried(times)
        assert failed.state == PENDING
        assert failed.next_attempt_at is not None
        waiting = failed.next_attempt_at - failed.attempts[-1].at
        assert timedelta(seconds=pause) <= waiting <= timedelta(seconds=1.1 * pause)
        post.hurry()
    assert post.tried(3).state == DELIVERED
    assert [attempt.status for attempt in post.only().attempts] == [500, 404, 204]
    first, *others = post.receiver.calls
    assert all((c.headers["webhook-id"], c.body) == (first.headers["webhook-id"], first.body) for c in others)
    for call in range(3):
        post.verified(post.webhook.secret, call)


@pytest.mark.usefixtures("courier")
def test_after_ten_tries_it_has_failed_and_can_be_replayed(post: Post, cancelled: Callable[[], str]) -> None:
    post.receiver.answers = [(503, {})] * 10
    cancelled()
    for times in range(1, 11):
        last = post.tried(times)
        post.hurry()
    assert (last.state, last.next_attempt_at) == (FAILED, None)
    post.replay()
    assert post.tried(11).state == DELIVERED
    assert len({call.headers["webhook-id"] for call in post.receiver.calls}) == 1


@pytest.mark.usefixtures("courier")
def test_what_was_delivered_can_be_replayed_too(post: Post, cancelled: Callable[[], str]) -> None:
    cancelled()
    post.tried(1)
    post.replay()
    assert post.tried(2).state == DELIVERED
    assert len(post.receiver.calls) == 2


@pytest.mark.usefixtures("courier")
def test_410_disables_the_endpoint(post: Post, cancelled: Callable[[], str]) -> None:
    post.receiver.answers = [(410, {})]
    cancelled()
    assert post.tried(1).state == FAILED
    with post.database.transaction() as session:
        endpoint = endpoints.get(session, post.tenant, post.webhook.id)
    assert endpoint.disabled_at is not None
    assert "410" in str(endpoint.disabled_reason)
    cancelled()
    assert len(post.log()) == 1  # nothing more is owed to it
    with pytest.raises(Conflict, match="410"):
        post.replay()


@pytest.mark.usefixtures("courier")
def test_a_redirect_is_a_failure_and_not_followed(post: Post, cancelled: Callable[[], str]) -> None:
    post.receiver.answers = [(307, {"Location": post.receiver.url + "/elsewhere"})]
    cancelled()
    assert post.tried(1).state == PENDING
    assert [call.path for call in post.receiver.calls] == ["/hook"]


@pytest.mark.usefixtures("courier")
def test_retry_after_holds_back_everything_to_the_endpoint(post: Post, cancelled: Callable[[], str]) -> None:
    later = datetime.now(UTC) + timedelta(hours=2)
    post.receiver.answers = [(429, {"Retry-After": format_datetime(later, usegmt=True)})]
    cancelled()
    held = post.tried(1)
    assert held.next_attempt_at is not None
    assert held.next_attempt_at >= later - timedelta(seconds=1)
    cancelled()
    with post.database.transaction() as session:
        assert deliveries.take_due(session, limit=10, lease_seconds=60) == []
    post.hurry()
    wait_until(lambda: [d.state for d in post.log()] == [DELIVERED] * 2, "it was not let go on")


@pytest.mark.usefixtures("courier")
def test_while_a_secret_is_rotated_either_one_verifies(post: Post, cancelled: Callable[[], str]) -> None:
    new = post.rotate()
    assert new.secret != post.webhook.secret
    assert new.public_key != post.webhook.public_key
    assert new.previous_secret_expires_at is not None
    cancelled()
    post.tried(1)
    assert post.verified(new.secret) == post.verified(post.webhook.secret)
    with post.database.transaction() as session:
        past = func.clock_timestamp() - timedelta(seconds=1)
        session.execute(update(WebhookSecret).where(WebhookSecret.expires_at.is_not(None)).values(expires_at=past))
    post.replay()
    post.tried(2)
    post.verified(new.secret)
    with pytest.raises(WebhookVerificationError):
        post.verified(post.webhook.secret)


def test_a_second_rotation_ends_the_oldest_secret(post: Post) -> None:
    post.rotate(), post.rotate()
    assert post.rotate().previous_secret_expires_at is not None
    with post.database.transaction() as session:
        assert len(endpoints.valid_secrets(session, post.webhook.id)) == 2
    at_once = post.rotate(post.settings.model_copy(update={"webhook_grace_seconds": 0}))
    assert at_once.previous_secret_expires_at is None


def test_secrets_are_sealed_in_the_database(post: Post) -> None:
    secret = base64.b64decode(post.webhook.secret.removeprefix("whsec_"))
    with post.database.transaction() as session:
        (row,) = session.scalars(select(WebhookSecret))
    assert secret not in row.sealed_secret
    assert len(row.sealed_secret) > len(secret) == 32


def test_only_allowed_addresses_are_called(
    post: Post, start: Callable[..., None], cancelled: Callable[[], str]
) -> None:
    start(post.settings.model_copy(update={"webhook_allow_networks": []}))
    cancelled()
    refused = post.tried(1)
    assert refused.attempts[0].status is None
    assert "no public address" in str(refused.attempts[0].error)
    assert post.receiver.calls == []


def test_without_its_master_key_nothing_is_sent_and_no_try_is_lost(
    post: Post, start: Callable[..., None], cancelled: Callable[[], str]
) -> None:
    other = SecretStr(base64.b64encode(bytes(32)).decode())
    start(post.settings.model_copy(update={"master_key": other}))
    cancelled()
    kept = post.tried(1)
    assert (kept.state, post.receiver.calls) == (PENDING, [])
    with post.database.transaction() as session:
        assert session.scalars(select(WebhookDelivery.attempts)).one() == 0


def test_a_slow_endpoint_does_not_hold_up_another_one(
    post: Post, start: Callable[..., None], cancelled: Callable[[], str]
) -> None:
    start(post.settings.model_copy(update={"webhook_timeout_seconds": 60}))  # a call that times out makes room
    with receiving() as slow:
        slow.open.clear()
        post.register(url=slow.url)
        for _ in range(deliveries.PER_ENDPOINT + 2):
            cancelled()
        ended = deliveries.PER_ENDPOINT + 2
        wait_until(lambda: len(post.receiver.calls) == ended, "the other one waits")
        wait_until(lambda: len(slow.calls) == deliveries.PER_ENDPOINT, "too few calls to the slow one")
        assert len(slow.calls) == deliveries.PER_ENDPOINT
        slow.open.set()
        wait_until(lambda: len(slow.calls) == ended, "it did not go on")


def test_calls_under_way_count(post: Post, cancelled: Callable[[], str]) -> None:
    for _ in range(deliveries.PER_ENDPOINT + 2):
        cancelled()
    for under_way, taken in (
        (deliveries.PER_ENDPOINT, 0),
        (deliveries.PER_ENDPOINT - 1, 1),
        (0, deliveries.PER_ENDPOINT),
    ):
        with post.database.transaction() as session:
            due = deliveries.take_due(session, limit=32, lease_seconds=60, under_way={post.webhook.id: under_way})
            assert len(due) == taken


def test_two_couriers_make_each_call_once(post: Post, start: Callable[..., None], cancelled: Callable[[], str]) -> None:
    start(), start()
    for _ in range(20):
        cancelled()
    wait_until(lambda: all(d.state == DELIVERED for d in post.log()), "not all arrived")
    received = [call.headers["webhook-id"] for call in post.receiver.calls]
    assert len(received) == len(set(received)) == 20


def test_a_relay_whose_clock_is_slow_keeps_what_it_took(
    post: Post, cancelled: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            return datetime.now(tz) - timedelta(seconds=80)

    cancelled()
    monkeypatch.setattr(deliveries, "datetime", Slow)
    for expected in (1, 0):
        with post.database.transaction() as session:
            assert len(deliveries.take_due(session, limit=10, lease_seconds=60)) == expected


def test_a_call_whose_courier_was_lost_is_made_by_another(
    post: Post, start: Callable[..., None], cancelled: Callable[[], str]
) -> None:
    cancelled()
    with post.database.transaction() as session:
        (lost,) = deliveries.take_due(session, limit=10, lease_seconds=60)
        assert deliveries.take_due(session, limit=10, lease_seconds=60) == []
    post.hurry()
    start()
    post.tried(1)
    late = deliveries.Outcome(at=datetime.now(UTC), milliseconds=1, status=500)
    with post.database.transaction() as session:
        deliveries.settle(session, lost, late)
    assert post.only().state == DELIVERED
    assert len(post.only().attempts) == 1


def test_what_is_rolled_back_is_owed_to_nobody(post: Post, submit: Callable[..., str]) -> None:
    job = submit()
    with pytest.raises(RuntimeError), post.database.transaction() as session:
        job_ending.cancel(session, post.tenant, job)
        raise RuntimeError
    assert post.log() == []


def test_each_endpoint_gets_the_events_that_it_wants(
    post: Post, submit: Callable[..., str], stranger: str, settings: Settings
) -> None:
    started = post.register(events=("job.started", "job.failed"))
    with post.database.transaction() as session:
        wanted = WebhookRegistration(url=post.receiver.url)
        foreign = endpoints.register(session, stranger, wanted, settings)
    world = World(post.database, post.tenant, submit())
    world.claim()
    world.do(lifecycle.record_steps, 1, [lifecycle.Step(Stage.FORGETTING, 1, {})], 0.5)
    world.cancel()
    world.do(lifecycle.confirm_cancel, 1)
    with post.database.transaction() as session:
        owed = session.execute(select(WebhookDelivery.webhook_id, WebhookDelivery.type)).all()
    assert sorted(map(tuple, owed)) == sorted([(started.id, "job.started"), (post.webhook.id, "job.cancelled")])
    assert foreign.id not in [webhook_id for webhook_id, _ in owed]


def test_a_deleted_endpoint_takes_all_of_it_along(post: Post, cancelled: Callable[[], str]) -> None:
    cancelled()
    with post.database.transaction() as session:
        endpoints.delete(session, post.tenant, post.webhook.id)
    with post.database.transaction() as session:
        for table in (Webhook, WebhookSecret, WebhookDelivery):
            assert session.scalar(select(func.count()).select_from(table)) == 0
        with pytest.raises(NotFound):
            endpoints.get(session, post.tenant, post.webhook.id)
    cancelled()


def test_the_log_of_calls_is_kept_for_a_while_and_what_is_owed_until_it_is_paid(
    post: Post, cancelled: Callable[[], str]
) -> None:
    cancelled(), cancelled()
    ago = datetime.now(UTC) - timedelta(days=post.settings.delivery_log_days)
    with post.database.transaction() as session:
        settled, owed = session.scalars(select(WebhookDelivery).order_by(WebhookDelivery.id))
        settled.state, settled.next_attempt_at = DeliveryState.DELIVERED, None
        settled.created_at = owed.created_at = ago + timedelta(minutes=1)
        kept = owed.id
        session.flush()
        expired_rows.sweep(session, post.settings)
        assert session.scalar(select(func.count()).select_from(WebhookDelivery)) == 2
        settled.created_at = owed.created_at = ago
        session.flush()
        expired_rows.sweep(session, post.settings)
        assert session.scalars(select(WebhookDelivery.id)).all() == [kept]


def test_an_endpoint_that_is_deleted_meanwhile_fails_no_job(post: Post, cancelled: Callable[[], str]) -> None:
    def waits() -> bool:
        with post.database.transaction() as session:
            return bool(session.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")))

    with ThreadPoolExecutor(1) as pool:
        with post.database.transaction() as session:
            endpoints.delete(session, post.tenant, post.webhook.id)
            session.flush()
            ending = pool.submit(cancelled)
            wait_until(waits, "nobody waits for the endpoint")
        job = ending.result(30)
    with post.database.transaction() as session:
        assert queries.get(session, post.tenant, job).state == JobState.CANCELLED
        assert session.scalar(select(func.count()).select_from(WebhookDelivery)) == 0


def test_a_superseded_model_is_told_with_the_new_one(post: Post, submit: Callable[..., str]) -> None:
    world = World(post.database, post.tenant, submit(external_id="DSR-8"))
    said: dict[str, object] = {"model": "mdl_old", "superseded_by": "mdl_new", "by_job": "job_2", "reason": "Jane"}
    with post.database.transaction() as session:
        events.record(session, queries.locked(session, post.tenant, world.job), "job.superseded_model", said)
    data = post.only().body["data"]
    assert {name: data[name] for name in ("model", "superseded_by", "by_job", "external_id")} == {
        "model": "mdl_old",
        "superseded_by": "mdl_new",
        "by_job": "job_2",
        "external_id": "DSR-8",
    }
    assert "reason" not in data


def test_the_token_of_an_ended_job_goes_and_its_end_point_follows(post: Post, submit: Callable[..., str]) -> None:
    ended, running = (World(post.database, post.tenant, submit(external_id=name)) for name in "ab")
    with post.database.transaction() as session:
        for world in (ended, running):
            added = endpoints.add_for_job(
                session, post.tenant, world.job, CallKind.FIDES, post.receiver.url, ["job.cancelled"]
            )
            endpoints.add_token(session, post.tenant, added, "secret", post.settings)

    def left() -> tuple[int, int, int]:
        """End points of jobs, their secrets, and deliveries that are owed to them."""
        with post.database.transaction() as session:
            expired_rows.sweep(session, post.settings)
            own = select(Webhook.id).where(Webhook.job_id.is_not(None))
            counted = (Webhook.id, WebhookSecret.webhook_id, WebhookDelivery.webhook_id)
            points, secrets, calls = (
                session.scalar(select(func.count()).where(column.in_(own))) or 0 for column in counted
            )
            return points, secrets, calls

    assert left() == (2, 2, 0)
    ended.cancel()
    assert left() == (2, 2, 1)  # the call is still to be made, with the token
    with post.database.transaction() as session:
        session.execute(update(WebhookDelivery).values(state=DELIVERED, next_attempt_at=None))
    assert left() == (2, 1, 1)
    with post.database.transaction() as session:
        session.execute(update(WebhookDelivery).values(created_at=func.now() - timedelta(days=30)))
    assert left() == (1, 1, 0)
    running.cancel()
    assert left() == (1, 1, 1)


def test_the_limit_holds_for_registrations_at_the_same_time(post: Post) -> None:
    """One that has not committed counts already: the next one waits for it."""
    wanted = WebhookRegistration.model_validate({"url": post.receiver.url})
    for _ in range(endpoints.PER_TENANT - 2):
        post.register()
    outcomes: list[str] = []

    def register() -> None:
        try:
            post.register()
            outcomes.append("registered")
        except Conflict:
            outcomes.append("refused")

    with post.database.transaction() as session:
        endpoints.register(session, post.tenant, wanted, post.settings)
        second = threading.Thread(target=register)
        second.start()
        waiting = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
        wait_until(lambda: counted(post.database, waiting) or outcomes, "the second registration never came")
        assert outcomes == []
    second.join()
    assert outcomes == ["refused"]


def counted(database: Database, query: TextClause) -> int:
    with database.transaction() as session:
        return int(session.scalar(query) or 0)


def test_there_is_a_limit_to_endpoints(post: Post) -> None:
    for _ in range(endpoints.PER_TENANT - 1):
        post.register()
    with pytest.raises(Conflict, match="limit"):
        post.register()


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, 0),
        ("", 0),
        ("120", 120),
        ("-5", 0),
        ("99999999999999999999", 86400),
        ("Thu, 01 Jan 2026 00:01:00 GMT", 60),
        ("Thu, 01 Jan 2026 00:01:00", 60),
        ("Wed, 31 Dec 2025 00:00:00 GMT", 0),
        ("Sat, 01 Jan 2028 00:00:00 GMT", 86400),
        ("Mon, 01 Jan 99999999999999999999 00:00:00 GMT", 0),
        ("soon", 0),
        ("٣", 0),
    ],
)
def test_what_retry_after_asks_for(header: str | None, seconds: float) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert deliveries.retry_after_seconds(header, now) == seconds


def test_the_schedule_is_that_of_the_specification() -> None:
    total = timedelta(seconds=sum(deliveries.SCHEDULE_SECONDS))
    assert (len(deliveries.SCHEDULE_SECONDS), total) == (10, timedelta(hours=75, minutes=35, seconds=5))


def test_bodies_are_small_and_hold_no_needless_space(post: Post, cancelled: Callable[[], str]) -> None:
    cancelled()
    with post.database.transaction() as session:
        body = session.scalars(select(WebhookDelivery.body)).one()
    assert body == json.dumps(json.loads(body), separators=(",", ":"))
    assert len(body) < 1000
