"""Routes whose JSON bodies are limited in size and read strictly."""

import json
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any, TypeVar

from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute
from pydantic import JsonValue, ValidationError

from api.parts import parts_of
from shared.strict_json import loads
from shared.errors import InvalidRequest
from shared.schemas.base import Schema
from shared.schemas.wording import invalid_request

JSON = "application/json"

SchemaT = TypeVar("SchemaT", bound=Schema)


def is_json(request: Request) -> bool:
    """True if the body is declared as JSON."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() == JSON


class StrictRequest(Request):
    """A request whose JSON body is limited in size and read strictly."""

    async def body(self) -> bytes:
        """Return the body.

        Raises:
            HTTPException: 415 where the body is not declared as JSON, 413 where it is larger than `max_body_bytes`.
        """
        if hasattr(self, "_body"):
            return self._body
        limit = parts_of(self).settings.max_body_bytes
        body = bytearray()
        async for chunk in self.stream():
            body += chunk
            if len(body) > limit:
                raise HTTPException(
                    HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"A JSON body may have {limit} bytes (EFFACE_MAX_BODY_BYTES)."
                )
        if body and not is_json(self):
            raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Send the body as Content-Type: application/json.")
        self._body = bytes(body)
        return self._body

    async def json(self) -> JsonValue:
        """Return the body as JSON (see `loads`)."""
        return loads(await self.body())


async def parse(request: StrictRequest, schema: type[SchemaT]) -> SchemaT:
    """Read a JSON body as `schema`, for a route that takes other bodies, too.

    Raises:
        InvalidRequest: it is not acceptable JSON, or fields of it are wrong.
    """
    try:
        body = await request.json()
    except json.JSONDecodeError as error:
        raise InvalidRequest.at("", f"the body is not acceptable JSON: {error.msg}") from error
    try:
        return schema.model_validate(body)
    except ValidationError as error:
        raise invalid_request(error, body) from error


class StrictRoute(APIRoute):
    """A route that reads its JSON body strictly."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the usual handler, over a `StrictRequest`."""
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handler(StrictRequest(request.scope, request.receive))

        return strict
