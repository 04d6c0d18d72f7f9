"""The relay: carries committed messages to the queue and to webhooks, takes lost jobs back, watches deadlines, certifies what
has ended, deletes what must not stay, seals the log.

Any number of relays may run. Each part survives the loss of what it stands on: it logs, waits and goes on.
"""

import threading
from collections.abc import Callable
from typing import Protocol

import psycopg
import structlog
from sqlalchemy import delete, func, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from services import audit_chain, audit_heads, expiry, lifecycle, risk, sweeper
from services.certifier import Certifier
from services.courier import Courier
from shared.database import OUTBOX_CHANNEL, Database
from shared.errors import EffaceError
from shared.settings import Settings
from shared.storage import Storage
from shared.tables import Job, Outbox

LONGEST_PAUSE_SECONDS = 10.0
BATCH = 100
"""Messages in one transaction."""
GATHER_SECONDS = 0.02
"""The relay waits this long after it was woken: what is committed meanwhile goes along, at the price of one transaction."""

log = structlog.get_logger()


class Bell(Protocol):
    """The queue (`shared.queue.Doorbell`)."""

    def ring(self, job_id: str, attempt: int) -> None:
        """Tell the workers that this job waits."""

    def length(self) -> int:
        """Return how many messages wait."""


def publish(session: Session, bell: Bell, limit: int = BATCH) -> int:
    """Send what the outbox holds and delete it, in one transaction; return how many messages were sent.

    A crash between sending and commit sends a message twice, which costs a worker one failed claim. The jobs' rows are
    locked only when everything is sent: a worker that hears the bell at once must not wait for the rest.
    """
    query = select(Outbox.id, Outbox.job_id, Job.attempt).join(Job, Job.id == Outbox.job_id).order_by(Outbox.id)
    rows = session.execute(query.limit(limit).with_for_update(of=Outbox, skip_locked=True)).all()
    for _, job_id, attempt in rows:
        bell.ring(job_id, attempt + 1)
    if rows:
        rung = [job_id for _, job_id, _ in rows]
        session.execute(update(Job).where(Job.id.in_(rung)).values(doorbell_at=func.clock_timestamp()))
        session.execute(delete(Outbox).where(Outbox.id.in_([number for number, _, _ in rows])))
    return len(rows)


def run_relay(database: Database, bell: Bell, storage: Storage, settings: Settings, stop: threading.Event) -> None:
    """Do all of it until `stop` is set."""
    certifier = Certifier(database, storage, settings)
    keeper = audit_heads.Keeper(database, storage, settings)
    jobs: list[tuple[str, Callable[[], None]]] = [
        ("relay.publish", lambda: _publish_all(database, bell, settings, stop)),
        ("relay.reconcile", lambda: _reconcile(database, bell, settings, stop)),
        ("relay.purge", lambda: _purge(database, storage, settings, stop)),
        ("relay.abandoned", lambda: _sweep_abandoned(database, storage, settings, stop)),
        ("relay.audit", lambda: _audit(keeper, settings, stop)),
        ("relay.deliver", lambda: Courier(database, settings).work(stop)),
        ("relay.certify", lambda: certifier.work(stop)),
    ]
    threads = [
        threading.Thread(target=_forever, args=(name, work, stop), name=name, daemon=True) for name, work in jobs
    ]
    for thread in threads:
        thread.start()
    stop.wait()
    for thread in threads:
        thread.join(5)


def _forever(name: str, work: Callable[[], None], stop: threading.Event) -> None:
    """Call `work` again and again; after a failure, at growing intervals."""
    pause = 0.1
    while not stop.is_set():
        try:
            work()
            pause = 0.1
        except (SQLAlchemyError, psycopg.Error, EffaceError, OSError) as error:
            log.warning("relay.part_unavailable", part=name, error=str(error), retry_seconds=pause)
            stop.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        except Exception:
            # kombu raises errors of several libraries; the relay outlives all of them, and says so loudly
            log.exception("relay.failed", part=name, retry_seconds=pause)
            stop.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


def _publish_all(database: Database, bell: Bell, settings: Settings, stop: threading.Event) -> None:
    """Listen, and send whatever there is whenever Postgres calls, and every `relay_seconds` as the backstop."""
    url = settings.sqlalchemy_url().replace("postgresql+psycopg://", "postgresql://")
    with psycopg.connect(url, autocommit=True, connect_timeout=5) as listener:
        listener.execute(f"LISTEN {OUTBOX_CHANNEL}")
        while not stop.is_set():
            while _transaction(database, bell) == BATCH:
                pass
            for _ in listener.notifies(timeout=settings.relay_seconds, stop_after=1):
                stop.wait(GATHER_SECONDS)
            for _ in listener.notifies(timeout=0):
                pass  # these calls are answered, too: what they tell of was committed before the next transaction


def _transaction(database: Database, bell: Bell) -> int:
    with database.transaction() as session:
        sent = publish(session, bell)
    if sent:
        log.info("relay.published", messages=sent)
    return sent


def _reconcile(database: Database, bell: Bell, settings: Settings, stop: threading.Event) -> None:
    with database.transaction() as session:
        taken_back = lifecycle.take_back(session)
    messages = (
        bell.length()
    )  # before the jobs are counted: a job that comes between waits for its message in the outbox
    with database.transaction() as session:
        rung = lifecycle.ring_again(session, messages=messages, republish_seconds=settings.republish_seconds)
    if taken_back or rung:
        log.warning("relay.reconciled", taken_back=taken_back, rung_again=rung)
    with database.transaction() as session:
        expiry.sweep(session, settings)
    with database.transaction() as session:
        at_risk = risk.flag(session, longest_seconds=settings.job_seconds)
    if at_risk:
        log.warning("relay.deadlines_at_risk", jobs=at_risk)
    stop.wait(settings.reconcile_seconds)


def _purge(database: Database, storage: Storage, settings: Settings, stop: threading.Event) -> None:
    done = sweeper.sweep_jobs(database, storage) + sweeper.sweep_datasets(database, storage, settings)
    done += sweeper.sweep_stragglers(database, storage, settings)
    if not done:
        stop.wait(min(settings.reconcile_seconds, 5.0))


def _sweep_abandoned(database: Database, storage: Storage, settings: Settings, stop: threading.Event) -> None:
    if deleted := sweeper.sweep_abandoned(database, storage, settings):
        log.warning("relay.abandoned_deleted", objects=deleted)
    stop.wait(settings.sweep_seconds)


def _audit(keeper: audit_heads.Keeper, settings: Settings, stop: threading.Event) -> None:
    if keeper.round() < audit_chain.BATCH:
        stop.wait(settings.relay_seconds)
