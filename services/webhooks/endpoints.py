"""Endpoints that a tenant wants to be called at: register, look, rotate the secret, delete."""

import asyncio
import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import httpx
from sqlalchemy import delete as delete_rows
from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

from services.pages import Page, page_of
from shared.crypto import webhook_signatures
from shared.crypto.secret_box import SecretBox
from shared.errors import Conflict, InvalidRequest, NotFound
from shared.ids import new_id
from shared.ports.outbound_http import CallFailed, Outbound
from shared.postgres.advisory_locks import lock
from shared.postgres.tables import Job, Webhook, WebhookDelivery, WebhookSecret
from shared.schemas.webhook import EventType, WebhookRegistration, WebhookView, WebhookWithSecret
from shared.settings import Settings
from shared.states import CallKind, DeliveryState

PER_TENANT = 20
PRIVATE_KEY_BYTES = 32
HIGHEST_PORT = 65_535
_ELSEWHERE = (
    "give one that the public internet can reach, or have the operator add its network "
    "to EFFACE_WEBHOOK_ALLOW_NETWORKS"
)
LISTED = Webhook.job_id.is_(None)
"""What a tenant has registered here; call-backs of a single job belong to the request that named
them.
"""


def outbound(settings: Settings) -> Outbound:
    """Return what calls endpoints."""
    return Outbound(
        allowed=settings.webhook_allow_networks, timeout_seconds=settings.webhook_timeout_seconds
    )


def check_url(url: str, outbound: Outbound, field: str = "/url") -> None:
    """Find out whether a URL, which stood in `field`, may be called. Slow, for it asks the name
    server: hold no transaction.

    Raises:
        InvalidRequest: it is no http or https URL, or leads where no call may go.
    """
    try:
        parsed = httpx.URL(url)
        host = parsed.host  # decodes an international name, which may be none
    except (httpx.InvalidURL, UnicodeError) as error:
        raise InvalidRequest.at(field, f"is no URL: {error}") from error
    if parsed.scheme not in ("https", "http") or not host:
        raise InvalidRequest.at(field, "must begin with https:// and name a host")
    if parsed.port is not None and not 0 < parsed.port <= HIGHEST_PORT:
        raise InvalidRequest.at(
            field, f"has port {parsed.port}; a port lies between 1 and {HIGHEST_PORT}"
        )
    if parsed.userinfo or parsed.fragment:
        raise InvalidRequest.at(
            field, "must hold no user name, password or fragment; the signature proves who calls"
        )
    try:
        asyncio.run(outbound.check(url))
    except CallFailed as error:
        detail = f"cannot be called: {error}; {_ELSEWHERE}"
        raise InvalidRequest.at(field, detail) from error


def register(
    session: Session, tenant_id: str, wanted: WebhookRegistration, settings: Settings
) -> WebhookWithSecret:
    """Add an endpoint whose URL was checked (`check_url`).

    Raises:
        Conflict: the tenant has as many as it may.
        Unavailable: there is no master key to seal its secret with.
    """
    box = SecretBox.of(settings)
    lock(
        session, "webhooks", tenant_id
    )  # registrations of one tenant take turns, so that the limit holds exactly
    if (
        session.scalar(select(func.count()).where(Webhook.tenant_id == tenant_id, LISTED)) or 0
    ) >= PER_TENANT:
        raise Conflict(
            f"There are {PER_TENANT} webhooks already, which is the limit; delete one that is "
            "not "
            "needed."
        )
    webhook = Webhook(
        id=new_id("whk"),
        tenant_id=tenant_id,
        url=wanted.url,
        description=wanted.description,
        events=sorted(set(wanted.events)),
    )
    session.add(webhook)
    session.flush()  # its secret refers to it
    return _with_new_secret(session, webhook, box)


def add_for_job(
    session: Session,
    tenant_id: str,
    job_id: str,
    kind: CallKind,
    url: str,
    events: Sequence[EventType],
) -> str:
    """Have one job's events told to a URL, in the manner of `kind`; return the end point's id.

    Only what a request itself asks for is added here: it is not listed, and lives as long as its
    job."""
    webhook = Webhook(
        id=new_id("whk"),
        tenant_id=tenant_id,
        kind=kind,
        job_id=job_id,
        url=url,
        events=sorted(set(events)),
    )
    session.add(webhook)
    session.flush()
    return webhook.id


def add_token(
    session: Session, tenant_id: str, webhook_id: str, token: str, settings: Settings
) -> None:
    """Keep the token that calls to an end point bear, sealed.

    Raises:
        Unavailable: there is no master key to seal it with.
    """
    box = SecretBox.of(settings)
    sealed = {
        "sealed_secret": box.seal(token.encode(), webhook_id),
        "sealed_private_key": box.seal(b"", webhook_id),
    }
    session.add(WebhookSecret(webhook_id=webhook_id, tenant_id=tenant_id, public_key="", **sealed))
    session.flush()


def rotate(
    session: Session, tenant_id: str, webhook_id: str, settings: Settings
) -> WebhookWithSecret:
    """Give an endpoint a new secret; the one before signs along until the grace period ends, an
    older one ends now.

    Raises:
        NotFound: the tenant has none of this id.
        Unavailable: there is no master key to seal the secret with.
    """
    webhook = row(session, tenant_id, webhook_id, lock=True)
    of_it = WebhookSecret.webhook_id == webhook_id
    session.execute(delete_rows(WebhookSecret).where(of_it, WebhookSecret.expires_at.is_not(None)))
    expires_at = datetime.now(UTC) + timedelta(seconds=settings.webhook_grace_seconds)
    session.execute(update(WebhookSecret).where(of_it).values(expires_at=expires_at))
    return _with_new_secret(session, webhook, SecretBox.of(settings))


def get(session: Session, tenant_id: str, webhook_id: str) -> WebhookView:
    """Return an endpoint.

    Raises:
        NotFound: the tenant has none of this id.
    """
    return _view(session, row(session, tenant_id, webhook_id))


def list_page(
    session: Session, tenant_id: str, *, after: str | None = None, limit: int = 20
) -> Page[WebhookView]:
    """Return a page of endpoints, newest first."""
    page = page_of(
        session,
        select(Webhook).where(LISTED),
        Webhook,
        tenant_id=tenant_id,
        after=after,
        limit=limit,
    )
    return Page([_view(session, webhook) for webhook in page.data], page.has_more)


def delete(session: Session, tenant_id: str, webhook_id: str) -> None:
    """Delete an endpoint with its secrets and all that is or was to be delivered to it.

    Raises:
        NotFound: the tenant has none of this id.
    """
    session.delete(row(session, tenant_id, webhook_id, lock=True))


def row(session: Session, tenant_id: str, webhook_id: str, *, lock: bool = False) -> Webhook:
    """Return an endpoint's row, with `lock` locked until the transaction ends.

    Raises:
        NotFound: the tenant has none of this id.
    """
    query = select(Webhook).where(Webhook.id == webhook_id, Webhook.tenant_id == tenant_id, LISTED)
    webhook = session.scalar(query.with_for_update() if lock else query)
    if webhook is None:
        raise NotFound("webhook", webhook_id)
    return webhook


def valid_secrets(session: Session, webhook_id: str) -> Sequence[WebhookSecret]:
    """Return what a call is signed with now, the current generation first."""
    valid = or_(
        WebhookSecret.expires_at.is_(None), WebhookSecret.expires_at > func.clock_timestamp()
    )
    query = select(WebhookSecret).where(WebhookSecret.webhook_id == webhook_id, valid)
    return session.scalars(query.order_by(WebhookSecret.id.desc())).all()


def opened(secrets: Sequence[WebhookSecret], box: SecretBox) -> list[tuple[bytes, bytes]]:
    """Return (HMAC key, Ed25519 private key) of each generation.

    Raises:
        Unavailable: none of the master keys opens them.
    """
    return [
        (box.open(s.sealed_secret, s.webhook_id), box.open(s.sealed_private_key, s.webhook_id))
        for s in secrets
    ]


def _with_new_secret(session: Session, webhook: Webhook, box: SecretBox) -> WebhookWithSecret:
    secret, private_key = os.urandom(webhook_signatures.SECRET_BYTES), os.urandom(PRIVATE_KEY_BYTES)
    session.add(
        WebhookSecret(
            webhook_id=webhook.id,
            tenant_id=webhook.tenant_id,
            sealed_secret=box.seal(secret, webhook.id),
            sealed_private_key=box.seal(private_key, webhook.id),
            public_key=webhook_signatures.public_key_text(private_key),
        )
    )
    session.flush()
    shown = _view(session, webhook).model_dump()
    return WebhookWithSecret(**shown, secret=webhook_signatures.secret_text(secret))


def forget_ended(session: Session) -> None:
    """Delete what calls for one job alone were made with, once the job has ended and none of its
    calls is still to be made.

    The secret or token goes at once, the end point with the log of its last call.
    """
    mine = WebhookDelivery.webhook_id == Webhook.id
    pending = (
        select(WebhookDelivery.id)
        .where(mine, WebhookDelivery.state == DeliveryState.PENDING)
        .exists()
    )
    ended = select(Job.id).where(Job.id == Webhook.job_id, Job.finished_at.is_not(None)).exists()
    done = select(Webhook.id).where(Webhook.job_id.is_not(None), ended, ~pending)
    session.execute(delete_rows(WebhookSecret).where(WebhookSecret.webhook_id.in_(done)))
    unlogged = done.where(~select(WebhookDelivery.id).where(mine).exists())
    session.execute(delete_rows(Webhook).where(Webhook.id.in_(unlogged)))


def rewrap(session: Session, settings: Settings) -> int:
    """Seal every secret under the first master key, so that older ones can go; return how many
    there are.
    """
    box = SecretBox.of(settings)
    rows = session.scalars(select(WebhookSecret).with_for_update()).all()
    for row in rows:
        row.sealed_secret = box.resealed(row.sealed_secret, row.webhook_id)
        row.sealed_private_key = box.resealed(row.sealed_private_key, row.webhook_id)
    return len(rows)


def _view(session: Session, webhook: Webhook) -> WebhookView:
    current, *previous = valid_secrets(session, webhook.id)
    return WebhookView(
        id=webhook.id,
        url=webhook.url,
        events=tuple(webhook.events),
        description=webhook.description,
        public_key=current.public_key,
        previous_secret_expires_at=previous[0].expires_at if previous else None,
        disabled_at=webhook.disabled_at,
        disabled_reason=webhook.disabled_reason,
        created_at=webhook.created_at,
    )
