"""What becomes of a received file: it is checked, stored, and written down, or nothing of it stays.

No transaction is open while a file is checked or the storage answers.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from sqlalchemy.orm import Session

from services.access import idempotency, quotas
from services.access.idempotency import Answer, Call, once
from services.catalog import datasets, models, unfinished_uploads
from services.catalog.unfinished_uploads import Begin, Kind, Unfinished
from shared.files.inspection import Inspectors, limits_for
from shared.ids import new_id
from shared.ports.object_storage import Storage
from shared.settings import Settings

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A file on disk, there for as long as its request is served."""

    path: Path
    filename: str
    sha256: str
    size_bytes: int
    folder: Path
    """A temporary folder that goes with the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Uploads:
    """One tenant's uploads."""

    tenant_id: str
    begin: Begin
    storage: Storage
    inspectors: Inspectors
    settings: Settings
    gone: threading.Event
    """Set when nobody waits for the answer any more: checking stops, what is stored already is
    finished.
    """

    def check_room(self, kind: Kind, size_bytes: int) -> None:
        """Refuse an upload before it is received, where that can be told already.

        Raises:
            StorageFull: the tenant stores as much as it may.
        """
        with self.begin() as session:
            quotas.check_storage(session, self.tenant_id, kind, size_bytes, self.settings)

    def add_dataset(
        self,
        file: Received,
        call: Call | None,
        *,
        name: str,
        purge_after_job: bool | None,
        skip_invalid: bool = False,
    ) -> Answer:
        """Make a data set of an archive; with `skip_invalid`, what cannot be used is left out and
        counted.

        Raises:
            InvalidRequest: it is none that can be taken.
            StorageFull: the tenant stores as much as it may.
            Unavailable: the storage does not answer.
            Gone: the client has left while it was checked.
            StillInFlight, IdempotencyKeyReused: as `idempotency.once`.
        """
        if (earlier := self._answered(call)) is not None:
            return earlier
        within = replace(
            limits_for(file.size_bytes, self.settings),
            file=self.settings.max_archive_expanded_bytes,  # shards in an archive are unpacked
        )
        check = partial(self.inspectors.archive, sha256=file.sha256, within=within, gone=self.gone)
        summary = datasets.inspect(file.path, self.settings, check, skip_invalid=skip_invalid)
        dataset_id = new_id("ds")
        add = partial(
            datasets.add,
            tenant_id=self.tenant_id,
            name=name,
            size_bytes=file.size_bytes,
            summary=summary,
            purge_after_job=purge_after_job,
        )
        return self._stored(
            self._unfinished(
                "dataset", dataset_id, datasets.prefix(self.tenant_id, dataset_id), file.size_bytes
            ),
            call,
            lambda: datasets.store(
                self.storage, self.tenant_id, file.path, self.settings, dataset_id
            ),
            lambda session, stored: add(session, stored=stored).model_dump_json(),
        )

    def add_model(
        self,
        file: Received,
        call: Call | None,
        *,
        name: str,
        architecture: str | None,
        unpacked_bytes: int,
    ) -> Answer:
        """Make a model of a checkpoint, an archive of which may unpack to a file of
        `unpacked_bytes`.

        Raises:
            InvalidRequest: it is none that can be taken.
            StorageFull: the tenant stores as much as it may.
            Unavailable: the storage does not answer.
            Gone: the client has left while it was checked.
            StillInFlight, IdempotencyKeyReused: as `idempotency.once`.
        """
        if (earlier := self._answered(call)) is not None:
            return earlier
        within = limits_for(file.size_bytes, self.settings, file_bytes=unpacked_bytes)
        checkpoint = models.check_upload(
            file.path,
            filename=file.filename,
            architecture=architecture,
            scratch=file.folder,
            check=partial(self.inspectors.checkpoint, within=within, gone=self.gone),
        )
        model_id = new_id("mdl")
        add = partial(models.add, tenant_id=self.tenant_id, name=name)
        return self._stored(
            self._unfinished(
                "model", model_id, models.prefix(self.tenant_id, model_id), checkpoint.size_bytes
            ),
            call,
            lambda: models.store(self.storage, self.tenant_id, model_id, checkpoint),
            lambda session, values: add(session, values=values).model_dump_json(),
        )

    def _answered(self, call: Call | None) -> Answer | None:
        if call is None:
            return None
        with self.begin() as session:
            return idempotency.kept(session, call)

    def _unfinished(self, kind: Kind, new: str, key: str, size_bytes: int) -> Unfinished:
        return Unfinished(
            id=new, tenant_id=self.tenant_id, kind=kind, key=key, size_bytes=size_bytes
        )

    def _stored(
        self,
        upload: Unfinished,
        call: Call | None,
        put: Callable[[], T],
        add: Callable[[Session, T], str],
    ) -> Answer:
        """Store the objects, then write the row; take the objects back where that comes to
        nothing.
        """
        with self.begin() as session:
            unfinished_uploads.begin(session, upload, self.settings)
        used = False
        try:
            stored = put()

            def added() -> Answer:
                unfinished_uploads.finish(session, upload.id)
                return Answer(201, add(session, stored), {})

            with self.begin() as session:
                answer = once(session, call, added, self.settings.idempotency_seconds)
            used = not answer.replayed
            return answer
        finally:
            if not used:
                unfinished_uploads.try_to_take_back(self.begin, self.storage, upload.id)
