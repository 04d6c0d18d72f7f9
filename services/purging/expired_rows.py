"""Rows that live for a time alone: answers under idempotency keys, access tokens, sessions and
sign-in links of the console, the log of webhook calls, end points and tokens of jobs that have
ended. The relay deletes what is over."""

from datetime import timedelta

from sqlalchemy import delete, func
from sqlalchemy.orm import Session

from services.webhooks import endpoints
from shared.postgres.tables import (
    AccessToken,
    ConsoleLink,
    ConsoleSession,
    IdempotencyKey,
    WebhookDelivery,
)
from shared.settings import Settings
from shared.states import DeliveryState


def sweep(session: Session, settings: Settings) -> None:
    """Delete every row whose time is over. Nothing waits for it: what has expired is not looked
    at anyway.
    """
    for table in (IdempotencyKey, AccessToken, ConsoleSession, ConsoleLink):
        session.execute(delete(table).where(table.expires_at <= func.clock_timestamp()))
    settled = WebhookDelivery.state != DeliveryState.PENDING
    old = WebhookDelivery.created_at <= func.clock_timestamp() - timedelta(
        days=settings.delivery_log_days
    )
    session.execute(delete(WebhookDelivery).where(settled, old))
    endpoints.forget_ended(session)
