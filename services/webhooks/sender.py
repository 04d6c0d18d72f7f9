"""The courier: makes the calls that are due, many at a time, each within a time limit. A part of
the relay.
"""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import structlog

from services.webhooks import deliveries, endpoints
from services.webhooks.deliveries import Due, Outcome
from shared.crypto import webhook_signatures
from shared.crypto.opendsr_key import ProcessorKey
from shared.crypto.secret_box import SecretBox
from shared.errors import Unavailable
from shared.ports.outbound_http import CallFailed
from shared.postgres.database import Database
from shared.settings import Settings
from shared.states import CallKind

SETTLE_SECONDS = 60.0
"""A call is taken for lost this long after its time limit: time enough to write down how it
went.
"""

log = structlog.get_logger()

Call = asyncio.Task[tuple[Due, Outcome]]


class Courier:
    """Sends until it is told to stop. Any number of couriers may run: each call is taken by one
    of them.
    """

    def __init__(
        self, database: Database, settings: Settings, beat: Callable[[], None] = lambda: None
    ) -> None:
        """Take the database that calls are owed in; `beat` is called whenever the courier looks
        for what is due.
        """
        self._database, self._settings, self._beat = database, settings, beat
        self._outbound = endpoints.outbound(settings)

    def work(self, stop: threading.Event) -> None:
        """Send what is due until `stop` is set. Calls under way are then dropped; they are made
        again later.
        """
        with ThreadPoolExecutor(1) as books:
            asyncio.run(self._run(stop, books))

    async def _run(self, stop: threading.Event, books: ThreadPoolExecutor) -> None:
        """Keep as many calls under way as may be. `books` is for the database alone: names that
        resolve slowly fill the loop's own threads, and must not hold up what was sent elsewhere."""
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(self._settings.webhook_concurrency))
        calls: dict[Call, Due] = {}
        try:
            while not stop.is_set():
                self._beat()
                for due in await loop.run_in_executor(books, self._take, list(calls.values())):
                    calls[asyncio.create_task(self._send(due))] = due
                if not calls:
                    await asyncio.sleep(self._settings.relay_seconds)
                    continue
                done, _ = await asyncio.wait(
                    calls, timeout=self._settings.relay_seconds, return_when=asyncio.FIRST_COMPLETED
                )
                await loop.run_in_executor(books, self._settle, [call.result() for call in done])
                for call in done:
                    del calls[call]
        finally:
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)

    def _take(self, under_way: list[Due]) -> list[Due]:
        free = self._settings.webhook_concurrency - len(under_way)
        if free <= 0:
            return []
        counted = Counter(due.webhook_id for due in under_way)
        lease_seconds = self._settings.webhook_timeout_seconds + SETTLE_SECONDS
        with self._database.transaction() as session:
            return deliveries.take_due(
                session, limit=free, lease_seconds=lease_seconds, under_way=counted
            )

    async def _send(self, due: Due) -> tuple[Due, Outcome]:
        """Make one call. Whatever goes wrong becomes its outcome."""
        at, begin = datetime.now(UTC), time.monotonic()

        def outcome(**found: object) -> Outcome:
            return Outcome(at=at, milliseconds=round(1000 * (time.monotonic() - begin)), **found)  # type: ignore[arg-type]

        body = due.body.encode()
        try:
            signed = self._signed(due, at, body)
            answer = await self._outbound.post(
                due.url, body, {"Content-Type": "application/json", **signed}
            )
        except CallFailed as error:
            return due, outcome(error=str(error))
        except Unavailable as error:
            log.error("webhook.cannot_sign", webhook_id=due.webhook_id, error=error.detail)
            return due, outcome(error="it could not be signed", own_fault=True)
        except Exception:
            log.exception("webhook.fault", webhook_id=due.webhook_id, delivery_id=due.delivery_id)
            return due, outcome(error="a fault in the service", own_fault=True)
        return due, outcome(status=answer.status, retry_after=answer.retry_after)

    def _signed(self, due: Due, at: datetime, body: bytes) -> Mapping[str, str]:
        if due.kind == CallKind.OPENDSR:
            return ProcessorKey.of(self._settings).headers(body)
        keys = endpoints.opened(due.secrets, SecretBox.of(self._settings))
        if due.kind == CallKind.FIDES:
            return {"Authorization": f"Bearer {keys[0][0].decode()}"}
        return webhook_signatures.headers(due.delivery_id, int(at.timestamp()), body, keys)

    def _settle(self, calls: list[tuple[Due, Outcome]]) -> None:
        for due, outcome in calls:
            with self._database.transaction() as session:
                deliveries.settle(session, due, outcome)
            log.info(
                "webhook.called",
                webhook_id=due.webhook_id,
                delivery_id=due.delivery_id,
                attempt=due.attempt,
                status=outcome.status,
                error=outcome.error,
                ms=outcome.milliseconds,
            )
