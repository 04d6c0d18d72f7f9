"""Uploads of any size: they pass through to a temporary file, chunk by chunk, and are never held in memory."""

import hashlib
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, BinaryIO

from fastapi import Depends, Request
from pydantic import TypeAdapter, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from api import query
from api.decoding import check_coding, decoded
from api.json_route import Route
from api.parts import parts_of
from api.problems import refused
from shared.errors import FieldError, InvalidRequest, TooLarge
from shared.schemas.base import Label
from shared.schemas.wording import field_errors

FILE = "file"
"""The form field that holds the file."""
MAX_FORM_FIELDS = 8
COPY_BYTES = 1024 * 1024

_LABEL = TypeAdapter[str](Label)


REFUSED_UPLOADS = refused(HTTPStatus.BAD_REQUEST)
"""How a form that cannot be read looks in the OpenAPI document."""


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
                    "properties": {FILE: {"type": "string", "format": "binary"}, "name": {"type": "string"}},
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
    """One file on disk, there for as long as its request is served, and what was said about it."""

    path: Path
    filename: str
    fields: dict[str, str]
    """Query parameters, and the text fields of a form."""
    folder: Path
    """A temporary folder that goes with the file."""

    def content(self) -> dict[str, object]:
        """Return what tells this upload from another: what was said about it, and the file's SHA-256."""
        with self.path.open("rb") as file:
            return {"fields": self.fields, FILE: hashlib.file_digest(file, "sha256").hexdigest()}

    @property
    def name(self) -> str:
        """The name that the client gives to what it uploads.

        Raises:
            InvalidRequest: it gives none, or one that is not printable.
        """
        try:
            return _LABEL.validate_python(self.fields.get("name") or self.filename)
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
            raise InvalidRequest.at(f"/{field}", "must be true or false; leave it out for the default") from error


class _Limited(Request):
    """A request whose body may have so many bytes and no more, counted as they come."""

    async def stream(self) -> AsyncIterator[bytes]:  # type: ignore[override]  # Starlette's is a generator, too
        limit = parts_of(self).settings.max_upload_bytes
        too_large = TooLarge(f"An upload may have {limit} bytes (EFFACE_MAX_UPLOAD_BYTES); split it.")
        if int(self.headers.get("content-length", 0)) > limit:
            raise too_large
        async for chunk in decoded(super().stream(), check_coding(self), too_large, limit):
            yield chunk


async def received(request: Request) -> AsyncIterator[Upload]:
    """Write the body, or the field `file` of a form, to disk, and remove it when the request has been served.

    Raises:
        InvalidRequest: there is no file.
        TooLarge: it has more than `max_upload_bytes`.
    """
    limited = _Limited(request.scope, request.receive)
    is_form = request.headers.get("content-type", "").startswith("multipart/form-data")
    with tempfile.TemporaryDirectory(prefix="efface-upload-") as folder:
        async with (_form if is_form else _raw)(limited, Path(folder)) as upload:
            if upload.path.stat().st_size == 0:
                raise InvalidRequest.at(
                    "/file", "is empty; send the file's bytes as the body, or as a form field 'file'"
                )
            yield upload


ReceivedUpload = Annotated[Upload, Depends(received, scope="function")]


@asynccontextmanager
async def _raw(request: Request, folder: Path) -> AsyncIterator[Upload]:
    fields = dict(request.query_params)
    path = folder / FILE
    with path.open("wb") as file:
        async for chunk in request.stream():
            await run_in_threadpool(file.write, chunk)
    yield Upload(path, fields.get("filename", ""), fields, folder)


@asynccontextmanager
async def _form(request: Request, folder: Path) -> AsyncIterator[Upload]:
    path = folder / FILE
    async with request.form(max_files=1, max_fields=MAX_FORM_FIELDS) as form:
        file = form.get(FILE)
        if not isinstance(file, UploadFile):
            raise InvalidRequest.at("/file", "is missing; send the file as the form field 'file'")
        await run_in_threadpool(_copy, file.file, path)
        query.check_form(form.multi_items(), _known(request))
        fields = {name: value for name, value in form.items() if isinstance(value, str)}
    yield Upload(path, file.filename or "", dict(request.query_params) | fields, folder)


def _known(request: Request) -> dict[str, bool]:
    """Return the fields of a form: the file, and what may also stand in the query."""
    route: Route = request.scope["route"]
    return {FILE: False, **route.query}


def _copy(source: BinaryIO, path: Path) -> None:
    with path.open("wb") as file:
        while chunk := source.read(COPY_BYTES):
            file.write(chunk)
