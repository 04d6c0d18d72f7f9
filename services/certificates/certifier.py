"""The relay's part that issues certificates: what is owed, one transaction each."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from pydantic import ValidationError

from services.certificates import issuing, signing_keys
from services.certificates.issuing import Issuer, Uncertifiable
from shared.crypto.certificate_keys import NoSigningKey
from shared.ports.object_storage import Storage
from shared.postgres.database import Database
from shared.settings import Settings

log = structlog.get_logger()


FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS = 60.0, 3600.0


@dataclass(frozen=True, slots=True)
class _Refusal:
    """A job that could not be certified: when it is tried again, and how long that pause is."""

    until: float
    pause: float


class Certifier:
    """Issues what is owed. A job that cannot be certified holds up no other one; it is tried
    again at growing intervals.
    """

    def __init__(
        self,
        database: Database,
        storage: Storage,
        settings: Settings,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database, self._settings = database, settings
        self._issuer: Issuer = issuing.issuer_of(settings, storage)
        self._clock = clock
        self._refused: dict[str, _Refusal] = {}
        self._published: str | None = None
        self._complained = False

    def work(self, stop: threading.Event) -> None:
        """Do one round, then wait: for `relay_seconds` where nothing is left to do, for longer
        where there is no key.
        """
        try:
            if not self.round():
                stop.wait(self._settings.relay_seconds)
        except NoSigningKey as error:
            if not self._complained:
                log.error("certificate.no_signing_key", error=error.detail)
            self._complained = True
            stop.wait(self._settings.reconcile_seconds)

    def round(self) -> int:
        """Issue some of what is owed; return how many jobs were looked at.

        Raises:
            NoSigningKey: there is no key and something is owed, or the key must not be used as it
                lies there.
        """
        self._publish_key()
        now = self._clock()
        waiting = {job_id for job_id, refusal in self._refused.items() if refusal.until > now}
        with self._database.transaction() as session:
            jobs = issuing.owed(session, besides=waiting)
        for job_id in jobs:
            self._issue(job_id)
        # what is due to be tried again is owed nothing any more: another relay did it, or the job
        # is gone
        if not jobs:
            self._refused = {job_id: self._refused[job_id] for job_id in waiting}
        return len(jobs)

    def _publish_key(self) -> None:
        """Publish the key in use before anything is signed with it, where there is one."""
        if not self._issuer.folder.has_signer:
            return
        signer = self._issuer.folder.signer()
        if signer.key_id != self._published:
            with self._database.transaction() as session:
                signing_keys.publish(session, signer)
            self._published = signer.key_id

    def _issue(self, job_id: str) -> None:
        try:
            with self._database.transaction() as session:
                issued = issuing.issue(session, job_id, self._issuer)
        except (Uncertifiable, ValidationError) as error:
            before = self._refused.get(job_id)
            pause = min(2 * before.pause, LONGEST_RETRY_SECONDS) if before else FIRST_RETRY_SECONDS
            self._refused[job_id] = _Refusal(self._clock() + pause, pause)
            log.error("certificate.refused", job_id=job_id, error=str(error), retry_seconds=pause)
            return
        self._refused.pop(job_id, None)
        self._complained = False
        if issued:
            log.info("certificate.issued", job_id=job_id)
