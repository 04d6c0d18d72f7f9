"""Calls that events owe to webhooks: written with the event, sent by the relay, tried again,
replayed.

`webhook_deliveries` is the outbox of these calls: a row is there if and only if the event's
transaction was committed."""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, NamedTuple

from sqlalchemy import bindparam, case, func, or_, select, update
from sqlalchemy.orm import Session

from services.pages import Page, page_of
from services.webhooks import endpoints, opendsr_body
from shared.errors import Conflict, NotFound
from shared.ids import new_id
from shared.postgres.tables import Job, Webhook, WebhookDelivery, WebhookSecret
from shared.schemas.stored import stored
from shared.schemas.webhook import EVENT_TYPES, DeliveryAttempt, DeliveryView
from shared.states import CallKind, DeliveryState

SCHEDULE_SECONDS = (
    0,
    5,
    5 * 60,
    30 * 60,
    2 * 3600,
    5 * 3600,
    10 * 3600,
    14 * 3600,
    20 * 3600,
    24 * 3600,
)
"""How long after the one before each try comes: the schedule of the specification, ten tries in
three days.
"""
JITTER = 0.1
"""Up to this share is added to each pause, so that what failed together is not tried together."""
LONGEST_RETRY_AFTER_SECONDS = 24 * 3600
THROTTLED = frozenset(
    {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT}
)
THROTTLE_SECONDS = 30
"""How long an endpoint that is overloaded is left alone where it does not say."""
OWN_FAULT_SECONDS = 300
"""When a call is tried again that could not be made for a reason of our own."""
LOG_LENGTH = 20
FIDES_DONE = '{"rows_masked":1}'
"""What Fides wants to know of an erasure that succeeded."""
PER_ENDPOINT = 4
"""So many calls to one endpoint are under way at a time: a slow one does not hold up the others."""


@dataclass(frozen=True, slots=True)
class Due:
    """A call that is to be made now, taken by one relay for a while."""

    delivery_id: str
    attempt: int
    webhook_id: str
    kind: CallKind
    url: str
    body: str
    secrets: Sequence[WebhookSecret]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call went. Without a status there was no answer, for the reason in `error`."""

    at: datetime
    milliseconds: int
    status: int | None = None
    retry_after: str | None = None
    error: str | None = None
    own_fault: bool = False
    """Nothing was sent, and the endpoint is not to blame: it does not count as a try."""


class Event(NamedTuple):
    """What happened to a job, as its receivers are told."""

    type: str
    seq: int
    created_at: datetime
    data: Mapping[str, Any] = {}


TOLD = ("model", "superseded_by", "by_job")
"""What of an event's own data its receivers are told: ids alone. Messages and reasons may name
people.
"""


_WANTING = (
    select(Webhook.id, Webhook.kind, Webhook.url)
    .where(
        Webhook.tenant_id == bindparam("tenant_id"),
        or_(Webhook.job_id.is_(None), Webhook.job_id == bindparam("job_id")),
        Webhook.disabled_at.is_(None),
        Webhook.events.contains(bindparam("types")),
    )
    .with_for_update(read=True, key_share=True)
)
"""Who wants an event, built once. Locked against deletion alone: a row that goes away meanwhile
must not fail the job's transaction."""


def owe(session: Session, job: Job, event: Event, *, only: str | None = None) -> None:
    """Owe an event to every endpoint of the tenant that wants its type, in the event's transaction.

    With `only`, to that endpoint alone: one that was added after the event.

    The body names ids and states and nothing else: what a receiver wants to know it asks for,
    with its key."""
    if event.type not in EVENT_TYPES:
        return
    query = _WANTING if only is None else _WANTING.where(Webhook.id == only)
    values = {"tenant_id": job.tenant_id, "job_id": job.id, "types": [event.type]}
    for webhook_id, kind, url in session.connection().execute(query, values):
        body = _body(session, job, event, CallKind(kind), url)
        if body is None:
            continue
        session.add(
            WebhookDelivery(
                id=new_id("msg"),
                webhook_id=webhook_id,
                tenant_id=job.tenant_id,
                job_id=job.id,
                type=event.type,
                body=body,
                state=DeliveryState.PENDING,
                next_attempt_at=event.created_at,
            )
        )


def take_due(
    session: Session,
    *,
    limit: int,
    lease_seconds: float,
    under_way: Mapping[str, int] | None = None,
) -> list[Due]:
    """Take the calls that are due, oldest first, so many for each endpoint that with those
    `under_way` they are a few.

    Each counts as tried now. Whoever takes one and is not heard of again loses it when the lease
    ends."""
    now = func.clock_timestamp()
    ready = (
        WebhookDelivery.state == DeliveryState.PENDING,
        WebhookDelivery.next_attempt_at <= now,
        Webhook.disabled_at.is_(None),
        or_(Webhook.paused_until.is_(None), Webhook.paused_until <= now),
    )
    place = func.row_number().over(
        partition_by=WebhookDelivery.webhook_id,
        order_by=(WebhookDelivery.next_attempt_at, WebhookDelivery.id),
    )
    free = (
        PER_ENDPOINT - case(under_way, value=WebhookDelivery.webhook_id, else_=0)
        if under_way
        else PER_ENDPOINT
    )
    ranked = (
        select(WebhookDelivery.id, (place <= free).label("taken"))
        .join(Webhook)
        .where(*ready)
        .subquery()
    )
    first = select(ranked.c.id).where(ranked.c.taken)
    query = (
        select(WebhookDelivery, Webhook.kind, Webhook.url)
        .join(Webhook)
        .where(WebhookDelivery.id.in_(first), *ready)
    )
    query = query.order_by(WebhookDelivery.next_attempt_at).limit(limit)
    taken = session.execute(query.with_for_update(of=WebhookDelivery, skip_locked=True)).all()
    due = []
    for delivery, kind, url in taken:
        delivery.attempts += 1
        delivery.next_attempt_at = now + timedelta(
            seconds=lease_seconds
        )  # by the clock that it is compared with
        secrets = endpoints.valid_secrets(session, delivery.webhook_id)
        due.append(
            Due(
                delivery.id,
                delivery.attempts,
                delivery.webhook_id,
                CallKind(kind),
                url,
                delivery.body,
                secrets,
            )
        )
    return due


def settle(session: Session, due: Due, outcome: Outcome) -> None:
    """Record how a call went and when the next try is; nothing if somebody else has taken the
    call since.
    """
    # the endpoint first, as whoever deletes one does: two that lock in opposite orders would wait
    # for each other
    session.execute(
        select(Webhook.id).where(Webhook.id == due.webhook_id).with_for_update(key_share=True)
    )
    held = (WebhookDelivery.id == due.delivery_id, WebhookDelivery.attempts == due.attempt)
    delivery = session.scalar(select(WebhookDelivery).where(*held).with_for_update())
    if delivery is None or delivery.state != DeliveryState.PENDING:
        return
    tried = DeliveryAttempt(
        at=outcome.at, status=outcome.status, error=outcome.error, milliseconds=outcome.milliseconds
    )
    delivery.log = [*delivery.log, tried.model_dump(mode="json")][-LOG_LENGTH:]
    if outcome.own_fault:
        delivery.attempts -= 1
        delivery.next_attempt_at = func.clock_timestamp() + timedelta(seconds=OWN_FAULT_SECONDS)
    elif (
        outcome.status is not None and HTTPStatus.OK <= outcome.status < HTTPStatus.MULTIPLE_CHOICES
    ):
        _end(delivery, DeliveryState.DELIVERED)
    elif outcome.status == HTTPStatus.GONE:
        _disable(session, delivery.webhook_id, "it answered 410 Gone")
    else:
        _try_again(session, delivery, outcome)


def replay(session: Session, tenant_id: str, webhook_id: str, delivery_id: str) -> DeliveryView:
    """Have a call made again, from the beginning of the schedule, under the same id.

    Raises:
        NotFound: the tenant has no such endpoint or call.
        Conflict: the endpoint was disabled.
    """
    webhook = endpoints.row(session, tenant_id, webhook_id)
    if webhook.disabled_at is not None:
        raise Conflict(
            f"The webhook is disabled, for {webhook.disabled_reason}; register it again."
        )
    of_it = (WebhookDelivery.id == delivery_id, WebhookDelivery.webhook_id == webhook_id)
    delivery = session.scalar(select(WebhookDelivery).where(*of_it).with_for_update())
    if delivery is None:
        raise NotFound("delivery", delivery_id, listed=f"/webhooks/{webhook_id}/deliveries")
    delivery.state, delivery.attempts, delivery.next_attempt_at = (
        DeliveryState.PENDING,
        0,
        func.clock_timestamp(),
    )
    session.flush()
    session.refresh(delivery)
    return _view(delivery)


def list_page(
    session: Session,
    tenant_id: str,
    webhook_id: str,
    *,
    state: DeliveryState | None = None,
    after: str | None = None,
    limit: int = 20,
) -> Page[DeliveryView]:
    """Return a page of what was and is to be delivered to an endpoint, newest first.

    Raises:
        NotFound: the tenant has no such endpoint.
    """
    endpoints.row(session, tenant_id, webhook_id)
    query = select(WebhookDelivery).where(WebhookDelivery.webhook_id == webhook_id)
    if state is not None:
        query = query.where(WebhookDelivery.state == state)
    page = page_of(session, query, WebhookDelivery, tenant_id=tenant_id, after=after, limit=limit)
    return Page([_view(delivery) for delivery in page.data], page.has_more)


def retry_after_seconds(header: str | None, now: datetime) -> float:
    """Return what a Retry-After header asks for (RFC 9110, 10.2.3), from 0 to a day; 0 where it
    says nothing.
    """
    text = (header or "").strip()
    if text.isascii() and text.isdigit():
        seconds = float(text[:9])
    else:
        try:
            moment = parsedate_to_datetime(text)
        except (ValueError, OverflowError):
            return 0.0
        seconds = (moment.replace(tzinfo=moment.tzinfo or UTC) - now).total_seconds()
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER_SECONDS)


def _try_again(session: Session, delivery: WebhookDelivery, outcome: Outcome) -> None:
    asked = retry_after_seconds(outcome.retry_after, outcome.at)
    if asked or outcome.status in THROTTLED:
        until = func.clock_timestamp() + timedelta(seconds=asked or THROTTLE_SECONDS)
        session.execute(
            update(Webhook).where(Webhook.id == delivery.webhook_id).values(paused_until=until)
        )
    if delivery.attempts >= len(SCHEDULE_SECONDS):
        _end(delivery, DeliveryState.FAILED)
        return
    pause = SCHEDULE_SECONDS[delivery.attempts] * (1 + random.uniform(0, JITTER))
    delivery.next_attempt_at = func.clock_timestamp() + timedelta(seconds=max(pause, asked))


def _disable(session: Session, webhook_id: str, reason: str) -> None:
    """Send nothing more to an endpoint; what was still to be sent has failed."""
    disabled = {"disabled_at": func.clock_timestamp(), "disabled_reason": reason}
    session.execute(
        update(Webhook)
        .where(Webhook.id == webhook_id, Webhook.disabled_at.is_(None))
        .values(**disabled)
    )
    waiting = (
        WebhookDelivery.webhook_id == webhook_id,
        WebhookDelivery.state == DeliveryState.PENDING,
    )
    session.execute(
        update(WebhookDelivery)
        .where(*waiting)
        .values(state=DeliveryState.FAILED, next_attempt_at=None)
    )


def _end(delivery: WebhookDelivery, state: DeliveryState) -> None:
    delivery.state, delivery.next_attempt_at = state, None


def _body(session: Session, job: Job, event: Event, kind: CallKind, url: str) -> str | None:
    """Return what an end point is told, None where the event means nothing to it."""
    if kind is CallKind.OPENDSR:
        return opendsr_body.callback_body(session, job, event.type, url)
    if kind is CallKind.FIDES:
        return FIDES_DONE
    data: dict[str, Any] = {
        "job": job.id,
        "external_id": job.external_id,
        "state": job.state,
        "event": event.seq,
        "verdict": job.verdict,
        "error": job.error["code"] if job.error else None,
        "result_model": job.result_model_id,
    } | {name: event.data[name] for name in TOLD if name in event.data}
    payload = {
        "type": event.type,
        "timestamp": event.created_at.astimezone(UTC).isoformat(),
        "data": data,
    }
    return json.dumps(payload, separators=(",", ":"))


def _view(delivery: WebhookDelivery) -> DeliveryView:
    return DeliveryView(
        id=delivery.id,
        webhook=delivery.webhook_id,
        job=delivery.job_id,
        type=delivery.type,
        body=json.loads(delivery.body),
        state=DeliveryState(delivery.state),
        attempts=tuple(stored(DeliveryAttempt, tried) for tried in delivery.log),
        next_attempt_at=delivery.next_attempt_at,
        created_at=delivery.created_at,
    )
