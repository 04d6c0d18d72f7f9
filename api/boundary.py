"""The two layers around every route: what is logged, counted and rendered, and who may come in."""

import time
from collections.abc import Iterator
from http import HTTPStatus
from uuid import uuid4

import structlog
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import problems, ratelimit
from api.conditional import HEAD
from api.console import below_console
from api.oauth import TOKEN_PATH
from api.parts import Parts, parts_of
from api.routes.docs import OPEN_PATHS as DOCS
from api.telemetry import HttpMetrics
from services.access import access_tokens, api_keys
from services.access.api_keys import Principal
from services.subject_requests.opendsr import CERTIFICATE_PATH
from shared.crypto.public_keys import KEYS_PATH
from shared.errors import Unauthenticated
from shared.ports.rate_limiter import Usage
from shared.schemas.certificate import SCHEMA_PATH
from shared.schemas.report import REPORT_SCHEMA_PATH
from shared.schemas.validation_errors import cut

PROBES = frozenset({"/health/live", "/health/ready"})
OPEN_PATHS = (
    PROBES | DOCS | {TOKEN_PATH, KEYS_PATH, SCHEMA_PATH, REPORT_SCHEMA_PATH, CERTIFICATE_PATH}
)
"""What needs no key: the token endpoint asks for client credentials itself, and strangers check
signatures.
"""
KNOWN_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
UNREAD = frozenset(
    {
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.TOO_MANY_REQUESTS,
    }
)
"""Refused before the body was read: the connection is closed, or the client would go on to send
gigabytes for nothing.
"""
LOGGED_CHARACTERS = 200
"""Of a path: a stranger decides how long it is."""
CLIENT_CLOSED_REQUEST = 499  # as in nginx's log; nobody is there to read it

log = structlog.get_logger()


class Boundary:
    """Gives each request an id, logs and counts it, and turns what escapes from a route into a
    problem.
    """

    def __init__(self, app: ASGIApp, metrics: HttpMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        method = scope["method"]
        if (
            method == "HEAD"
        ):  # is answered as GET is; the server keeps its own scope, and sends no body
            scope = {**scope, "method": "GET", HEAD: True}
        request = Request(scope, receive)
        request.state.request_id = str(uuid4())
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request.state.request_id)
        begin = time.perf_counter()
        answer = _Answer(send, request)
        try:
            await self._app(scope, receive, answer)
        except ClientDisconnect:
            answer.status = CLIENT_CLOSED_REQUEST
        except Exception as error:
            if answer.status is not None:
                raise  # too late to say anything: the server breaks the connection off
            await problems.respond(request, error)(scope, receive, answer)
        finally:
            self._observe(scope, method, answer, begin)

    def _observe(self, scope: Scope, method: str, answer: "_Answer", begin: float) -> None:
        seconds = (answer.started or time.perf_counter()) - begin
        route = getattr(scope.get("route"), "path", "unknown")
        method = method if method in KNOWN_METHODS else "other"
        status = answer.status or HTTPStatus.INTERNAL_SERVER_ERROR
        self._metrics.observe(method=method, route=route, status=status, seconds=seconds)
        if scope["path"] not in PROBES:  # probes come every few seconds and say nothing
            milliseconds = round(1000 * seconds, 1)
            path = cut(scope["path"], LOGGED_CHARACTERS)
            log.info("http.request", method=method, path=path, status=int(status), ms=milliseconds)


class _Answer:
    """A `send` that adds headers, and remembers the status and when it went out."""

    def __init__(self, send: Send, request: Request) -> None:
        self._send = send
        self._request = request
        self.status: int | None = None
        self.started: float | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self.started = message["status"], time.perf_counter()
            message["headers"] = [*message["headers"], *self._headers(message["status"])]
        elif self._request.scope.get(HEAD) and message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await self._send(message)

    def _headers(self, status: int) -> Iterator[tuple[bytes, bytes]]:
        yield b"x-request-id", self._request.state.request_id.encode()
        unread = status in UNREAD or getattr(self._request.state, "unread", False)
        if unread and {"content-length", "transfer-encoding"} & set(self._request.headers):
            yield b"connection", b"close"
        yield from ratelimit.headers(self._request)


class Authentication:
    """Lets nobody past without a key, or over its tenant's limit, before anything of the body is
    read.

    Only `OPEN_PATHS` are open, and the console has a gate of its own (`api.console.gate`). It
    stands before the router, so that a route that forgets to ask for a scope is still closed to
    strangers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Find out whose request it is, and pass it on."""
        closed = (
            scope["type"] == "http"
            and scope["path"] not in OPEN_PATHS
            and not below_console(scope["path"])
        )
        if closed:
            request = Request(scope)
            token = _token(request)
            principal, usage = await run_in_threadpool(_admit, parts_of(request), token)
            request.state.principal = principal
            request.state.credential = api_keys.digest(token)
            structlog.contextvars.bind_contextvars(
                tenant_id=principal.tenant_id, key_id=principal.key_id
            )
            ratelimit.check(request, usage)
            if "\0" in scope["path"]:  # names nothing, and Postgres refuses to look for it
                raise HTTPException(HTTPStatus.NOT_FOUND)
        await self._app(scope, receive, send)


def _token(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated(
            "Send an API key or an access token as 'Authorization: Bearer KEY'; 'efface keys "
            "create' makes a key."
        )
    return token.strip()


def _admit(parts: Parts, token: str) -> tuple[Principal, Usage | None]:
    """Look the key up on its own, so that a long upload holds no connection, and count the
    request.
    """
    with parts.database.look() as connection:
        principal = access_tokens.identify(connection, token)
    return principal, parts.limiter.hit(principal.tenant_id)
