"""Uploads of any size: they pass through to a temporary file, chunk by chunk, and are never held in
memory.

A few are received at a time (`api.upload_desk`), each is hashed while it comes, and
`services.catalog.uploads` does the rest."""

import asyncio
import hashlib
import tempfile
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path
from typing import Any, BinaryIO

from anyio import CancelScope, CapacityLimiter, to_thread
from fastapi import Request
from pydantic import TypeAdapter, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

from api import query
from api.decoding import check_coding, decoded
from api.idempotency import KEY_HEADER
from api.json_route import Route
from api.parts import parts_of
from api.problems import refused
from api.upload_desk import Share
from services.access.api_keys import Principal
from services.access.idempotency import Answer
from services.catalog.unfinished_uploads import Begin, Kind
from services.catalog.uploads import Received, Uploads
from shared.errors import (
    Conflict,
    FieldError,
    IdempotencyKeyReused,
    InvalidRequest,
    StorageFull,
    TooLarge,
    TooSlow,
)
from shared.files.inspection import Gone
from shared.schemas.base import Label
from shared.schemas.validation_errors import field_errors

FILE = "file"
"""The form field that holds the file."""
MAX_FORM_FIELDS = 8
WRITE_BYTES = 1024 * 1024
"""What is received is gathered to so much before a thread writes it."""

_LABEL = TypeAdapter[str](Label)


REFUSED_UPLOADS = refused(HTTPStatus.BAD_REQUEST)
"""How a form that cannot be read looks in the OpenAPI document."""
UPLOAD_ERRORS = (TooLarge, TooSlow, StorageFull, Conflict, IdempotencyKeyReused)
"""How any upload may be refused."""


def text_parameter(name: str, description: str) -> dict[str, Any]:
    """Describe a query parameter that goes with an upload."""
    return {"name": name, "in": "query", "schema": {"type": "string"}, "description": description}


UPLOAD_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [FILE],
                    "properties": {
                        FILE: {"type": "string", "format": "binary"},
                        "name": {"type": "string"},
                    },
                }
            },
        },
    },
    "parameters": [
        text_parameter("name", "what to call it; by default the name of the file"),
        text_parameter("filename", "the file's name, where the body is the file itself"),
    ],
}
"""How an upload looks in the OpenAPI document."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that was received, and what was said about it."""

    file: Received
    fields: dict[str, str]
    """Query parameters, and the text fields of a form."""
    share: Share

    def content(self) -> dict[str, object]:
        """Return what tells this upload from another: what was said about it, and the file's
        SHA-256.
        """
        return {"fields": self.fields, FILE: self.file.sha256}

    @property
    def name(self) -> str:
        """The name that the client gives to what it uploads.

        Raises:
            InvalidRequest: it gives none, or one that is not printable.
        """
        try:
            return _LABEL.validate_python(self.fields.get("name") or self.file.filename)
        except ValidationError as error:
            wrong = field_errors(error.errors(), None)
            raise InvalidRequest([FieldError("/name", e.detail) for e in wrong]) from error

    def flag(self, field: str) -> bool | None:
        """Return what the client says to a question, None where it says nothing.

        Raises:
            InvalidRequest: it says neither true nor false.
        """
        try:
            return {"true": True, "false": False, None: None}[self.fields.get(field)]
        except KeyError as error:
            raise InvalidRequest.at(
                f"/{field}", "must be true or false; leave it out for the default"
            ) from error


class _Limited(Request):
    """A request whose body may have so many bytes and no more, counted as they come, and may not
    stand still.
    """

    async def stream(self) -> AsyncIterator[bytes]:  # type: ignore[override]  # Starlette's is a generator, too
        self.declared_bytes()
        limit = parts_of(self).settings.max_upload_bytes
        async for chunk in decoded(super().stream(), check_coding(self), _too_large(limit), limit):
            yield chunk

    def declared_bytes(self) -> int:
        """Return how many bytes the body will have, 0 where that is not known.

        Raises:
            TooLarge: more than `max_upload_bytes`.
        """
        declared = int(self.headers.get("content-length", 0))
        limit = parts_of(self).settings.max_upload_bytes
        if declared > limit:
            raise _too_large(limit)
        return declared


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"An upload may have {limit} bytes (EFFACE_MAX_UPLOAD_BYTES); split it.")


class _Sink:
    """A file that is written and hashed as it comes, a piece at a time, in threads that are
    there for it alone.
    """

    def __init__(self, file: BinaryIO, share: Share, threads: CapacityLimiter) -> None:
        self._file, self._share, self._threads = file, share, threads
        self._waiting = bytearray()
        self._digest = hashlib.sha256()
        self.size = 0

    async def write(self, chunk: bytes) -> None:
        """Take a chunk.

        Raises:
            Unavailable: there is no room for it.
        """
        self._share.write(len(chunk))
        self.size += len(chunk)
        self._waiting += chunk
        if len(self._waiting) >= WRITE_BYTES:
            await self._flush()

    async def finish(self) -> str:
        """Write what is left, and return the file's SHA-256."""
        await self._flush()
        return self._digest.hexdigest()

    async def _flush(self) -> None:
        piece, self._waiting = self._waiting, bytearray()
        await to_thread.run_sync(self._write, piece, limiter=self._threads)

    def _write(self, piece: bytearray) -> None:
        self._digest.update(piece)
        self._file.write(piece)


class _Part(UploadFile):
    """The file of a form, which goes to the sink while it comes."""

    sink: _Sink

    async def write(self, data: bytes) -> None:
        """Take a piece."""
        await self.sink.write(data)

    async def seek(self, offset: int) -> None:
        """Do nothing: nobody reads it here."""


class _FormParser(MultiPartParser):
    """Reads a form whose one file goes to a sink, rather than to a temporary file from which it
    would be copied.
    """

    def __init__(self, headers: Headers, stream: AsyncGenerator[bytes, None], sink: _Sink) -> None:
        super().__init__(headers, stream, max_files=1, max_fields=MAX_FORM_FIELDS)
        self._sink = sink

    def on_headers_finished(self) -> None:
        """Begin a part."""
        super().on_headers_finished()
        if (file := self._current_part.file) is not None:
            part = _Part(file.file, filename=file.filename, headers=file.headers)
            part.sink = self._sink
            self._current_part.file = part


@asynccontextmanager
async def received(request: Request, kind: Kind) -> AsyncIterator[Upload]:
    """Wait for a turn, write the body, or the field `file` of a form, to disk, and remove it when
    the block ends.

    Raises:
        InvalidRequest: there is no file.
        TooLarge: it has more than `max_upload_bytes`.
        TooSlow: it has come to a standstill.
        QuotaExceeded: the turn did not come in time.
        StorageFull: the tenant stores as much as it may.
        Unavailable: there is no room in the temporary folder.
    """
    desk = parts_of(request).uploads
    limited = _Limited(request.scope, _patient(request))
    caller: Principal = request.state.principal
    async with desk.turns.taken(caller.tenant_id):
        is_form = request.headers.get("content-type", "").startswith("multipart/form-data")
        declared = limited.declared_bytes()
        if (
            KEY_HEADER not in request.headers
        ):  # under a key it may have been taken before, and is answered as it was
            await run_in_threadpool(
                _uploads(request, caller).check_room, kind, 0 if is_form else declared
            )
        with desk.scratch.share(declared) as share:
            async with _folder(desk.disk) as folder:
                with (folder / FILE).open("wb") as file:
                    sink = _Sink(file, share, desk.disk)
                    filename, fields = await (_form if is_form else _raw)(limited, sink)
                    sha256 = await sink.finish()
                if sink.size == 0:
                    raise InvalidRequest.at(
                        "/file",
                        "is empty; send the file's bytes as the body, or as a form field 'file'",
                    )
                yield Upload(
                    Received(
                        path=folder / FILE,
                        filename=filename,
                        sha256=sha256,
                        size_bytes=sink.size,
                        folder=folder,
                    ),
                    fields,
                    share,
                )


async def performed(
    request: Request, caller: Principal, begin: Begin, work: Callable[[Uploads], Answer]
) -> Answer:
    """Do with an upload what takes long, in a thread of uploads; tell it when the client leaves.

    Raises:
        ClientDisconnect: the client has left, and the work was broken off.
    """
    gone = threading.Event()
    watching = asyncio.create_task(_watch(request, gone))
    uploads = replace(_uploads(request, caller), begin=begin, gone=gone)
    try:
        return await to_thread.run_sync(
            work, uploads, limiter=parts_of(request).uploads.turns.threads
        )
    except Gone as error:
        raise ClientDisconnect from error
    finally:
        watching.cancel()


async def _watch(request: Request, gone: threading.Event) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    gone.set()


def _uploads(request: Request, caller: Principal) -> Uploads:
    parts = parts_of(request)
    return Uploads(
        tenant_id=caller.tenant_id,
        begin=parts.database.transaction,
        storage=parts.storage,
        inspectors=parts.uploads.inspectors,
        settings=parts.settings,
        gone=threading.Event(),
    )


def _patient(request: Request) -> Receive:
    """Return a `receive` that waits for the client, and not for ever."""
    seconds = parts_of(request).settings.upload_idle_seconds

    async def receive() -> Message:
        try:
            async with asyncio.timeout(seconds):
                return await request.receive()
        except TimeoutError:
            raise TooSlow(
                f"Nothing has come for {seconds:g} s (EFFACE_UPLOAD_IDLE_SECONDS); send it again."
            ) from None

    return receive


@asynccontextmanager
async def _folder(threads: CapacityLimiter) -> AsyncIterator[Path]:
    """Give a temporary folder. It may hold gigabytes, so that the loop has no time to delete it."""
    folder = tempfile.TemporaryDirectory(prefix="efface-upload-", ignore_cleanup_errors=True)
    try:
        yield Path(folder.name)
    finally:
        with CancelScope(shield=True):
            await to_thread.run_sync(folder.cleanup, limiter=threads)


async def _raw(request: Request, sink: _Sink) -> tuple[str, dict[str, str]]:
    fields = dict(request.query_params)
    async for chunk in request.stream():
        await sink.write(chunk)
    return fields.get("filename", ""), fields


async def _form(request: Request, sink: _Sink) -> tuple[str, dict[str, str]]:
    try:
        form = await _FormParser(request.headers, request.stream(), sink).parse()
    except MultiPartException as error:
        raise HTTPException(HTTPStatus.BAD_REQUEST, error.message) from error
    file = form.get(FILE)
    if not isinstance(file, UploadFile):
        raise InvalidRequest.at("/file", "is missing; send the file as the form field 'file'")
    query.check_form(form.multi_items(), _known(request))
    fields = {name: value for name, value in form.items() if isinstance(value, str)}
    return file.filename or "", dict(request.query_params) | fields


def _known(request: Request) -> dict[str, bool]:
    """Return the fields of a form: the file, and what may also stand in the query."""
    route: Route = request.scope["route"]
    return {FILE: False, **route.query}
