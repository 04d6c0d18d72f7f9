"""The relay's part that issues certificates: what is owed, one transaction each."""

import threading

import structlog
from pydantic import ValidationError

from services import evidence, signing_keys
from services.evidence import Issuer, Uncertifiable
from shared.database import Database
from shared.settings import Settings
from shared.signing import NoSigningKey
from shared.storage import Storage

log = structlog.get_logger()


class Certifier:
    """Issues what is owed. A job that cannot be certified holds up no other one; it is tried again by the next relay."""

    def __init__(self, database: Database, storage: Storage, settings: Settings) -> None:
        self._database, self._settings = database, settings
        self._issuer: Issuer = evidence.issuer_of(settings, storage)
        self._refused: set[str] = set()
        self._published: str | None = None
        self._complained = False

    def work(self, stop: threading.Event) -> None:
        """Do one round, then wait: for `relay_seconds` where nothing is left to do, for longer where there is no key."""
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
            NoSigningKey: there is no key and something is owed, or the key must not be used as it lies there.
        """
        self._publish_key()
        with self._database.transaction() as session:
            jobs = evidence.owed(session, besides=self._refused)
        for job_id in jobs:
            self._issue(job_id)
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
                issued = evidence.issue(session, job_id, self._issuer)
        except (Uncertifiable, ValidationError) as error:
            self._refused.add(job_id)
            log.error("certificate.refused", job_id=job_id, error=str(error))
            return
        self._complained = False
        if issued:
            log.info("certificate.issued", job_id=job_id)
