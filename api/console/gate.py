"""Who may come into the console, and what every answer below it carries.

It stands before the router as `boundary.Authentication` does for the API: a page that forgets to
ask who is there is still closed to strangers. Problems are told as a page, but to scripts that
ask for JSON."""

import json
from collections.abc import Mapping
from http import HTTPStatus
from urllib.parse import urlencode, urlsplit

import structlog
from fastapi import Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import HTMLResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import problems, ratelimit
from api.console import PREFIX, below_console, cookies
from api.console.rendering import render
from api.console.static import STATIC
from api.parts import Parts, parts_of
from services.access import console_sessions
from services.access.console_sessions import SignedIn
from shared.errors import Forbidden
from shared.ports.rate_limiter import Usage

HOME = f"{PREFIX}/"
SIGN_IN = f"{PREFIX}/sign-in"
SAFE = frozenset({"GET", "HEAD"})
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src "
    "'self' data:;"
    " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""`same-origin`, not `no-referrer`: under that browsers send forms with `Origin: null`."""
COMING = (
    '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Efface</title>'
    '<meta http-equiv="refresh" content="0"></head><body><p>One moment.</p></body></html>'
)
"""To a browser that comes from a link elsewhere and therefore keeps its strict cookie back: it
comes again from here.
"""


class Gate:
    """Lets people into the console; everything else passes by."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        if not below_console(scope["path"]):
            if (
                scope["path"] == "/"
                and request.method in SAFE
                and "text/html" in request.headers.get("accept", "")
            ):
                await RedirectResponse(HOME, HTTPStatus.TEMPORARY_REDIRECT)(scope, receive, send)
            else:
                await self._app(scope, receive, send)
            return
        answer = _Answer(send, request)
        try:
            turned_away = await self._admit(request)
            await (turned_away or self._app)(scope, receive, answer)
        except ClientDisconnect:
            raise
        except Exception as error:
            if answer.begun:
                raise
            await problems.respond(request, error)(scope, receive, answer)

    async def _admit(self, request: Request) -> Response | None:
        """Find out who is there; return the answer for those who may not come in.

        Raises:
            Forbidden: another site has sent this.
            QuotaExceeded: the tenant has sent too many requests.
        """
        path = request.scope["path"]
        if path == PREFIX:
            return RedirectResponse(HOME, HTTPStatus.PERMANENT_REDIRECT)
        if request.method not in SAFE:
            check_origin(request)
        if path.startswith(f"{STATIC}/"):
            return None
        cookie = cookies.read(request, cookies.SESSION)
        signed_in, usage = (
            await run_in_threadpool(_identify, parts_of(request), cookie)
            if cookie
            else (None, None)
        )
        request.state.signed_in = signed_in
        if signed_in is None:
            return None if path == SIGN_IN else _to_sign_in(request)
        request.state.principal, request.state.person = signed_in.principal, signed_in.person
        request.state.credential = signed_in.digest
        principal = signed_in.principal
        structlog.contextvars.bind_contextvars(
            tenant_id=principal.tenant_id, key_id=principal.key_id
        )
        ratelimit.check(request, usage)
        if "\0" in path:
            raise HTTPException(HTTPStatus.NOT_FOUND)
        return None


def check_origin(request: Request) -> None:
    """Refuse what another site has made a browser send. Browsers say where a form comes from;
    tokens are looked at besides.

    Raises:
        Forbidden: it comes from elsewhere.
    """
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    hosts = {
        request.headers.get("host"),
        urlsplit(parts_of(request).settings.public_url or "").netloc,
    }
    elsewhere = origin is not None and urlsplit(origin).netloc not in hosts - {None, ""}
    if elsewhere or site not in (None, "same-origin", "none"):
        raise Forbidden(
            "This form was sent from another site. Open the console itself, and try it there."
        )


def _identify(parts: Parts, cookie: str) -> tuple[SignedIn | None, Usage | None]:
    with parts.database.look() as connection:
        signed_in = console_sessions.identify(connection, cookie)
    return signed_in, parts.limiter.hit(signed_in.principal.tenant_id) if signed_in else None


def _to_sign_in(request: Request) -> Response:
    """Send somebody who is not signed in there, and back to where they wanted to go."""
    path = request.scope["path"]
    wanted = (
        {"next": f"{path}?{request.url.query}" if request.url.query else path}
        if path != HOME
        else {}
    )
    target = f"{SIGN_IN}?{urlencode(wanted)}" if wanted and request.method in SAFE else SIGN_IN
    if "hx-request" in request.headers or "text/event-stream" in request.headers.get("accept", ""):
        return Response(status_code=HTTPStatus.UNAUTHORIZED, headers={"HX-Redirect": SIGN_IN})
    if _comes_by_a_link(request):
        return HTMLResponse(COMING)
    return RedirectResponse(target, HTTPStatus.SEE_OTHER)


def _comes_by_a_link(request: Request) -> bool:
    headers: Mapping[str, str] = request.headers
    return (
        request.method == "GET"
        and headers.get("sec-fetch-site") == "cross-site"
        and headers.get("sec-fetch-mode") == "navigate"
    )


class _Answer:
    """A `send` that adds the headers of the console, and tells problems as pages."""

    def __init__(self, send: Send, request: Request) -> None:
        self._send, self._request = send, request
        self._held: Message | None = None
        self._problem = b""
        self.begun = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.begun = True
            headers = MutableHeaders(raw=message["headers"])
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            is_problem = headers.get("content-type", "").startswith(problems.MEDIA_TYPE)
            if is_problem and "application/json" not in self._request.headers.get("accept", ""):
                self._held = message
                return
        elif self._held is not None:
            self._problem += message.get("body", b"")
            if not message.get("more_body", False):
                await self._tell(self._held)
            return
        await self._send(message)

    async def _tell(self, start: Message) -> None:
        page = render(
            self._request, "problem.html", problem=json.loads(self._problem), status=start["status"]
        )
        headers = MutableHeaders(raw=start["headers"])
        headers["content-type"], headers["content-length"] = (
            page.headers["content-type"],
            str(len(page.body)),
        )
        await self._send(start)
        await self._send({"type": "http.response.body", "body": page.body})
