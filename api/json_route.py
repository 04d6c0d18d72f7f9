"""The one class of our routes. What every route keeps to is here, and not in the routes.

In this order, so that nobody makes the gateway work who may not: the key's scope, the query's
parameters, the body's size and coding, and only then the body itself. JSON bodies are read
strictly; what takes time goes to threads that do nothing else, so that no body keeps the gateway
from answering others."""

import json
from collections.abc import Callable, Collection, Coroutine
from functools import partial
from http import HTTPStatus
from typing import Any, ClassVar, TypeVar

import anyio.to_thread
from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute
from pydantic import JsonValue, TypeAdapter, ValidationError

from api import query
from api.decoding import check_coding, decoded
from api.dependencies import check_scope, scope_of
from api.parts import parts_of
from shared.errors import EffaceError, InvalidRequest, TooLarge
from shared.schemas.base import Schema
from shared.schemas.validation_errors import MAX_POINTER, cut, invalid_request
from shared.strict_json import TooManyMembers, loads

JSON = "application/json"
THREAD_FROM_BYTES = 4096
"""A larger body is parsed and checked in a thread: a smaller one takes less time than the way
there.
"""
BODY_SECONDS = 60.0
"""How long a client may take to send a JSON body."""

SchemaT = TypeVar("SchemaT", bound=Schema)


class UnreadableBody(InvalidRequest):
    """A body that is not acceptable JSON. Its reason may quote any part of it."""


def is_json(request: Request) -> bool:
    """True if the body is declared as JSON."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() == JSON


class StrictRequest(Request):
    """A request whose JSON body is limited in size and read strictly."""

    async def body(self) -> bytes:
        """Return the body.

        Raises:
            HTTPException: 415 where the body is not declared as JSON or is coded in an unknown way,
                408 where it does not come.
            TooLarge: it has more than `max_body_bytes`.
        """
        if hasattr(self, "_body"):
            return self._body
        limit = parts_of(self).settings.max_body_bytes
        too_large = TooLarge(f"A JSON body may have {limit} bytes (EFFACE_MAX_BODY_BYTES).")
        body = bytearray()
        try:
            with anyio.fail_after(BODY_SECONDS):
                async for chunk in decoded(self.stream(), check_coding(self), too_large, limit):
                    body += chunk
        except TimeoutError as error:
            raise HTTPException(
                HTTPStatus.REQUEST_TIMEOUT,
                f"The body did not come within {BODY_SECONDS:.0f} s; send it again.",
            ) from error
        if body and not is_json(self):
            raise HTTPException(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                "Send the body as Content-Type: application/json.",
            )
        self._body = bytes(body)
        return self._body

    async def read(self, schema: TypeAdapter[Any], hidden: Collection[str] = ()) -> None:
        """Read the body as `schema`, so that `json` returns the model; an empty one is left to the
        framework.

        Raises:
            UnreadableBody: it is not acceptable JSON.
            InvalidRequest: fields of it are wrong; what `hidden` fields hold is not repeated.
        """
        if body := await self.body():
            work = partial(_validated, schema, body, hidden)
            if len(body) < THREAD_FROM_BYTES:
                self._json = work()
            else:
                self._json = await anyio.to_thread.run_sync(
                    work, limiter=parts_of(self).body_threads
                )

    async def json(self) -> Any:  # noqa: ANN401 - the framework's type
        """Return what `read` made of the body."""
        return self._json


def _validated(schema: TypeAdapter[Any], body: bytes, hidden: Collection[str]) -> object:
    try:
        value: JsonValue = loads(body)
    except TooManyMembers as error:
        raise InvalidRequest.at(cut(error.pointer, MAX_POINTER), error.detail) from None
    except json.JSONDecodeError as error:
        raise UnreadableBody.at("", f"the body is not acceptable JSON: {error.msg}") from error
    try:
        return schema.validate_python(value)
    except ValidationError as error:
        raise invalid_request(error, value, hidden=hidden) from None


async def parse(request: StrictRequest, schema: type[SchemaT]) -> SchemaT:
    """Read a JSON body as `schema`, for a route that takes other bodies, too.

    Raises:
        InvalidRequest: it is not acceptable JSON, or fields of it are wrong.
    """
    await request.read(TypeAdapter(schema))
    if not await request.body():
        raise InvalidRequest.at("", "is missing and has no default")
    value: SchemaT = await request.json()
    return value


class Route(APIRoute):
    """A route that takes no more than it declares."""

    hidden: ClassVar[Collection[str]] = ()
    """Fields of the body whose values no error repeats."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the usual handler, behind the checks."""
        handler = super().get_route_handler()
        scopes = scope_of(self.dependant)
        self.query = query.declared(self.dependant, self.openapi_extra)
        annotation: Any = self.body_field and self.body_field.field_info.annotation
        body = TypeAdapter[Any](annotation) if annotation else None

        async def strict(request: Request) -> Response:
            strictly = StrictRequest(request.scope, request.receive)
            try:
                check_scope(request, scopes)
                query.check(request, self.query)
                check_coding(request)
                if body:
                    await strictly.body()
            except (EffaceError, HTTPException):
                request.state.unread = True
                raise
            if body:
                await strictly.read(body, self.hidden)
            return await handler(strictly)

        return strict
