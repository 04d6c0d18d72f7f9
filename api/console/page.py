"""What every page has in common: who may open it, that forms carry their token, and that they
are read in bounds.
"""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any
from urllib.parse import parse_qsl

import anyio
from fastapi import Depends, Request, Response
from fastapi.routing import APIRoute
from starlette.responses import RedirectResponse

from api import query
from api.console import cookies
from api.dependencies import check_scope, scope_of
from api.json_route import BODY_SECONDS
from api.parts import parts_of
from services.access.console_sessions import SignedIn
from shared.errors import Forbidden, InvalidRequest, TooLarge, TooSlow

TOKEN = "csrf"  # noqa: S105 - the name of a field
FORM = "application/x-www-form-urlencoded"
MAX_FIELDS = 200
SEE_OTHER = 303


class Form:
    """The fields of a form; one that is left empty counts as left out."""

    def __init__(self, fields: list[tuple[str, str]]) -> None:
        self._fields = [(name, value.strip()) for name, value in fields]

    def get(self, name: str) -> str | None:
        """Return the first value of a field, None where there is none."""
        return next((value for own, value in self._fields if own == name and value), None)

    def all(self, name: str) -> list[str]:
        """Return every value of a field."""
        return [value for own, value in self._fields if own == name and value]

    def lines(self, name: str) -> list[str]:
        """Return the lines of a field, or what stands between its commas."""
        text = "\n".join(self.all(name)).replace(",", "\n")
        return [line.strip() for line in text.splitlines() if line.strip()]

    def text(self, name: str) -> str:
        """Return a field's value on one line: a browser sends a reason with its line breaks."""
        return " ".join((self.get(name) or "").split())


class Page(APIRoute):
    """A route of the console."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the usual handler, behind the checks."""
        handler = super().get_route_handler()
        scopes = scope_of(self.dependant)
        self.query = query.declared(self.dependant, self.openapi_extra) | {
            TOKEN: False
        }  # what an upload's form may hold besides

        async def checked(request: Request) -> Response:
            check_scope(request, scopes)
            if request.method == "POST":
                await _read(request)
            return await handler(request)

        return checked


async def _read(request: Request) -> None:
    """Read a form, and refuse one without its token. Of an upload the token stands in the address,
    so that it is known first.

    Raises:
        Forbidden: the token is missing, or was made for another session.
    """
    form = Form(list(request.query_params.multi_items()))
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() == FORM:
        form = Form(await _fields(request))
    me = getattr(request.state, "signed_in", None)
    cookie = cookies.read(request, cookies.SESSION if me else cookies.FORM)
    if not cookies.fits(cookie, form.get(TOKEN) or ""):
        raise Forbidden(
            "This form was made for another session. Go back, load the page again, and send it "
            "once more."
        )
    request.state.form = form


async def _fields(request: Request) -> list[tuple[str, str]]:
    limit = parts_of(request).settings.max_body_bytes
    body = bytearray()
    try:
        with anyio.fail_after(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    raise TooLarge(f"A form may have {limit} bytes (EFFACE_MAX_BODY_BYTES).")
    except TimeoutError as error:
        raise TooSlow(
            f"The form did not come within {BODY_SECONDS:.0f} s; send it again."
        ) from error
    try:
        return parse_qsl(
            body.decode("ascii"), keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict"
        )
    except ValueError as error:
        raise InvalidRequest.at(
            "", "is no form that can be read, or has too many fields"
        ) from error


async def _form(request: Request) -> Form:
    form: Form = request.state.form
    return form


async def _me(request: Request) -> SignedIn:
    me: SignedIn = request.state.signed_in
    return me


FormDep = Annotated[Form, Depends(_form)]
MeDep = Annotated[SignedIn, Depends(_me)]


def go(address: str) -> Response:
    """Send a browser on after a form, so that loading the page again does nothing twice."""
    return RedirectResponse(address, SEE_OTHER)
