"""Routes of OpenDSR: every answer is signed, every refusal is an error as that specification
writes them.
"""

import json
from collections.abc import Callable, Coroutine, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.concurrency import run_in_threadpool

from api import problems
from api.json_route import Route, UnreadableBody
from api.parts import parts_of
from shared.crypto.opendsr_key import ProcessorKey
from shared.errors import Conflict, EffaceError, TooLarge, Unavailable

BAD_REQUEST = frozenset({HTTPStatus.CONFLICT, HTTPStatus.UNPROCESSABLE_ENTITY})
"""What the specification calls 400 (section 7.5); where it is silent, the answer is that of all
other routes.
"""


def responses(
    *errors: type[EffaceError], also: Mapping[int, Mapping[str, Any]] | None = None
) -> dict[int | str, dict[str, Any]]:
    """Describe a route's refusals for OpenAPI."""
    described = problems.responses(TooLarge, Conflict, *errors, also=also)
    for status in BAD_REQUEST:
        del described[int(status)]
    content = {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/OpenDsrProblem"}}}
    described[400] = {
        "description": "The request is wrong, or not possible in this state",
        "content": content,
    }
    described["4XX"] = {"description": "Any other refusal", "content": problems.CONTENT}
    return described


class SignedRoute(Route):
    """A route whose answers bear the signature of the processor, and whose errors repeat nothing
    of who the data subject is (section 7.6)."""

    hidden = frozenset({"subject_identities"})

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the usual handler; what it answers or refuses is signed."""
        handler = super().get_route_handler()

        async def signed(request: Request) -> Response:
            try:
                response = await handler(request)
            except (EffaceError, RequestValidationError, HTTPException) as error:
                response = _refusal(request, _discreet(error))
            await run_in_threadpool(_sign, request, response)
            return response

        return signed


def _sign(request: Request, response: Response) -> None:
    """Sign a response, but for the one that says that there is nothing to sign with."""
    try:
        key = ProcessorKey.of(parts_of(request).settings)
    except Unavailable:
        if response.status_code != HTTPStatus.SERVICE_UNAVAILABLE:
            raise
        return
    response.headers.update(key.headers(bytes(response.body)))
    response.headers.setdefault("Cache-Control", "no-store")


def _discreet(error: Exception) -> Exception:
    """Return an error that repeats nothing of the body where nobody knows what stands there."""
    if isinstance(error, UnreadableBody):
        return HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, "The body is not acceptable JSON.")
    return error


def _refusal(request: Request, error: Exception) -> Response:
    problem = problems.respond(request, error)
    said = json.loads(bytes(problem.body))
    status = (
        HTTPStatus.BAD_REQUEST
        if problem.status_code in BAD_REQUEST
        else HTTPStatus(problem.status_code)
    )
    reason = said["code"]
    details = [
        problems.ErrorDetail(
            domain=e.get("pointer") or e.get("parameter") or "/", reason=reason, message=e["detail"]
        )
        for e in said.get("errors", [{"detail": said["detail"]}])
    ]
    dsr_error = problems.OpenDsrError(code=status, message=said["detail"], errors=details)
    body = json.dumps(said | {"status": status, "error": dsr_error.model_dump()})
    headers = {
        name: value
        for name, value in problem.headers.items()
        if name not in ("content-length", "content-type")
    }
    return Response(body, status, headers, media_type=problems.MEDIA_TYPE)
