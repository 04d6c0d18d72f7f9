"""The relay: carries committed messages to the queue and to webhooks, takes lost jobs back, watches
deadlines, certifies what has ended, deletes what must not stay, seals the log.

Any number of relays may run. Each part survives the loss of what it stands on: it logs, waits
and goes on."""

import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from importlib.metadata import version
from typing import NamedTuple, Protocol

import psycopg
import structlog
from sqlalchemy import delete, func, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from services.audit_log import chain, signed_heads
from services.catalog import unfinished_uploads
from services.certificates.certifier import Certifier
from services.fleet import processes
from services.fleet.processes import BEAT_SECONDS, Sign
from services.jobs import deadline_risk, lifecycle
from services.purging import expired_rows, sweeper
from services.webhooks.sender import Courier
from shared.crypto.certificate_keys import KeyFolder
from shared.errors import EffaceError
from shared.ids import new_id
from shared.ports.object_storage import Storage
from shared.postgres.database import OUTBOX_CHANNEL, Database
from shared.postgres.tables import Job, Outbox
from shared.settings import Settings
from shared.states import ProcessKind

LONGEST_PAUSE_SECONDS = 10.0
BATCH = 100
"""Messages in one transaction."""
GATHER_SECONDS = 0.02
"""The relay waits this long after it was woken: what is committed meanwhile goes along, at the
price of one transaction.
"""

PATIENCE_SECONDS = 120.0
"""A part that has not come round for so long, beyond what it waits by itself, counts as stuck."""

log = structlog.get_logger()


class Part(NamedTuple):
    """Something that the relay does again and again, in a thread of its own."""

    name: str
    work: Callable[[], None]
    waits_seconds: float
    """The longest that it waits by itself between two rounds."""


class Bell(Protocol):
    """The queue (`shared.ports.queue.Doorbell`)."""

    def ring(self) -> None:
        """Tell the workers that some job waits."""

    def length(self) -> int:
        """Return how many messages wait."""


def publish(session: Session, bell: Bell, limit: int = BATCH) -> int:
    """Send what the outbox holds and delete it, in one transaction; return how many messages were
    sent.

    A crash between sending and commit sends a message twice, which costs a worker one failed
    claim. The jobs' rows are locked only when everything is sent: a worker that hears the bell
    at once must not wait for the rest."""
    query = select(Outbox.id, Outbox.job_id).order_by(Outbox.id)
    rows = session.execute(query.limit(limit).with_for_update(skip_locked=True)).all()
    for _ in rows:
        bell.ring()
    if rows:
        rung = [job_id for _, job_id in rows]
        session.execute(
            update(Job).where(Job.id.in_(rung)).values(doorbell_at=func.clock_timestamp())
        )
        session.execute(delete(Outbox).where(Outbox.id.in_([number for number, _ in rows])))
    return len(rows)


def run_relay(
    database: Database, bell: Bell, storage: Storage, settings: Settings, stop: threading.Event
) -> None:
    """Do all of it until `stop` is set, and say every few seconds which parts still come round."""
    certifier, pulse = Certifier(database, storage, settings), Pulse()
    keeper = signed_heads.Keeper(database, storage, settings)
    reconcile = settings.reconcile_seconds
    parts = [
        Part(
            "relay.publish",
            lambda: _publish_all(database, bell, settings, stop, pulse.of("relay.publish")),
            0,
        ),
        Part("relay.reconcile", lambda: _reconcile(database, bell, settings, stop), reconcile),
        Part("relay.purge", lambda: _purge(database, storage, settings, stop), reconcile),
        Part(
            "relay.abandoned",
            lambda: _sweep_abandoned(database, storage, settings, stop),
            settings.sweep_seconds,
        ),
        Part(
            "relay.unfinished",
            lambda: _sweep_unfinished(database, storage, settings, stop),
            reconcile,
        ),
        Part("relay.audit", lambda: _audit(keeper, settings, stop), settings.relay_seconds),
        Part(
            "relay.deliver",
            lambda: Courier(database, settings, pulse.of("relay.deliver")).work(stop),
            0,
        ),
        Part("relay.certify", lambda: certifier.work(stop), reconcile),
    ]
    threads = [
        threading.Thread(
            target=_forever, args=(part, stop, pulse.of(part.name)), name=part.name, daemon=True
        )
        for part in parts
    ]
    for thread in threads:
        thread.start()
    _show_life(database, settings, stop, lambda: pulse.stuck(parts))
    for thread in threads:
        thread.join(5)


class Pulse:
    """When each part last came round."""

    def __init__(self) -> None:
        self._begin = time.monotonic()
        self._last: dict[str, float] = {}

    def of(self, name: str) -> Callable[[], None]:
        """Return what a part calls whenever it comes round."""

        def beat() -> None:
            self._last[name] = time.monotonic()

        return beat

    def stuck(self, parts: Sequence[Part]) -> dict[str, float]:
        """Return the parts that have not come round for too long, and for how many seconds."""
        now = time.monotonic()
        silent = {part.name: now - self._last.get(part.name, self._begin) for part in parts}
        return {
            part.name: round(silent[part.name], 1)
            for part in parts
            if silent[part.name] > part.waits_seconds + PATIENCE_SECONDS
        }


def _show_life(
    database: Database,
    settings: Settings,
    stop: threading.Event,
    stuck: Callable[[], dict[str, float]],
) -> None:
    """Write the relay's row every few seconds until `stop` is set; then delete it."""
    relay_id, host = new_id("rly"), socket.gethostname()
    while not stop.is_set():
        try:
            facts = {"signing_key": KeyFolder(settings.signing_dir).has_signer, "stuck": stuck()}
            sign = Sign(
                relay_id, ProcessKind.RELAY, host, os.getpid(), version("efface"), facts=facts
            )
            with database.transaction() as session:
                processes.beat(session, sign)
                processes.forget(session)
        except (SQLAlchemyError, OSError) as error:
            log.warning(
                "relay.part_unavailable",
                part="relay.life",
                error=str(error),
                retry_seconds=BEAT_SECONDS,
            )
        for part, seconds in stuck().items():
            log.error("relay.part_stuck", part=part, seconds=seconds)
        stop.wait(BEAT_SECONDS)
    with suppress(SQLAlchemyError), database.transaction() as session:
        processes.leave(session, relay_id)


def _forever(part: Part, stop: threading.Event, beat: Callable[[], None]) -> None:
    """Do the work again and again; after a failure, at growing intervals."""
    pause = 0.1
    while not stop.is_set():
        beat()
        try:
            part.work()
            pause = 0.1
        except (SQLAlchemyError, psycopg.Error, EffaceError, OSError) as error:
            log.warning(
                "relay.part_unavailable", part=part.name, error=str(error), retry_seconds=pause
            )
            stop.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        except Exception:
            # kombu raises errors of several libraries; the relay outlives all of them, and says so
            # loudly
            log.exception("relay.failed", part=part.name, retry_seconds=pause)
            stop.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


def _publish_all(
    database: Database,
    bell: Bell,
    settings: Settings,
    stop: threading.Event,
    beat: Callable[[], None],
) -> None:
    """Listen, and send whatever there is whenever Postgres calls, and every `relay_seconds` as
    the backstop.
    """
    url = settings.sqlalchemy_url().replace("postgresql+psycopg://", "postgresql://")
    with psycopg.connect(url, autocommit=True, connect_timeout=5) as listener:
        listener.execute(f"LISTEN {OUTBOX_CHANNEL}")
        while not stop.is_set():
            beat()
            while _transaction(database, bell) == BATCH:
                pass
            for _ in listener.notifies(timeout=settings.relay_seconds, stop_after=1):
                stop.wait(GATHER_SECONDS)
            for _ in listener.notifies(timeout=0):
                # these calls are answered, too: what they tell of was committed before the next
                # transaction
                pass


def _transaction(database: Database, bell: Bell) -> int:
    with database.transaction() as session:
        sent = publish(session, bell)
    if sent:
        log.info("relay.published", messages=sent)
    return sent


def _reconcile(database: Database, bell: Bell, settings: Settings, stop: threading.Event) -> None:
    with database.transaction() as session:
        taken_back = lifecycle.take_back(session)
    if taken_back:
        log.warning("relay.reconciled", taken_back=taken_back)
    with database.transaction() as session:
        expired_rows.sweep(session, settings)
    with database.transaction() as session:
        at_risk = deadline_risk.flag(
            session, longest_seconds=settings.job_seconds, weights=settings.tenant_weights
        )
    if at_risk:
        log.warning("relay.deadlines_at_risk", jobs=at_risk)
    _ring_again(
        database, bell, settings
    )  # last: where Redis is away, nothing but this may wait for it
    stop.wait(settings.reconcile_seconds)


def _ring_again(database: Database, bell: Bell, settings: Settings) -> None:
    messages = (
        bell.length()
    )  # before the jobs are counted: a job that comes between waits for its message in the outbox
    with database.transaction() as session:
        rung = lifecycle.ring_again(
            session, messages=messages, republish_seconds=settings.republish_seconds
        )
    if rung:
        log.info("relay.rung_again", messages=rung)


def _purge(database: Database, storage: Storage, settings: Settings, stop: threading.Event) -> None:
    if not sweeper.sweep(database, storage, settings):
        stop.wait(min(settings.reconcile_seconds, 5.0))


def _sweep_abandoned(
    database: Database, storage: Storage, settings: Settings, stop: threading.Event
) -> None:
    if deleted := sweeper.sweep_abandoned(database, storage):
        log.warning("relay.abandoned_deleted", things=deleted)
    stop.wait(settings.sweep_seconds)


def _sweep_unfinished(
    database: Database, storage: Storage, settings: Settings, stop: threading.Event
) -> None:
    older_than = timedelta(hours=settings.unfinished_upload_hours)
    if taken_back := unfinished_uploads.sweep_unfinished_uploads(database, storage, older_than):
        log.warning("relay.unfinished_uploads_deleted", uploads=taken_back)
    stop.wait(settings.reconcile_seconds)


def _audit(keeper: signed_heads.Keeper, settings: Settings, stop: threading.Event) -> None:
    if keeper.round() < chain.BATCH:
        stop.wait(settings.relay_seconds)
