"""Templates: how they are found, what they know, and what a page's answer looks like."""

from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from fastapi import Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.responses import HTMLResponse

from api import VERSION
from api.console import PREFIX, cookies, words
from api.console.static import url_of
from services.access.console_sessions import SignedIn
from shared.states import Scope

KIB = 1024


def render(
    request: Request, template: str, *, status: int = HTTPStatus.OK, **context: object
) -> HTMLResponse:
    """Return a page. Every page knows who is signed in (`me`), what they may do (`may`), and the
    token of its forms.
    """
    me: SignedIn | None = getattr(request.state, "signed_in", None)
    cookie = cookies.read(request, cookies.SESSION if me else cookies.FORM)
    known = {
        "me": me,
        "may": _Rights(me),
        "csrf": cookies.token(cookie) if cookie else "",
        "path": request.url.path,
    }
    return HTMLResponse(_ENVIRONMENT.get_template(template).render(known | context), status)


class _Rights:
    """What somebody may do, as templates ask: `may("jobs:write")`."""

    def __init__(self, me: SignedIn | None) -> None:
        self._scopes = me.principal.scopes if me else frozenset()

    def __call__(self, scope: str) -> bool:
        return Scope.ADMIN in self._scopes or Scope(scope) in self._scopes


def _time(moment: datetime | None) -> Markup:
    """Return a time in UTC; the script writes it in the reader's zone."""
    if moment is None:
        return Markup("–")
    utc = moment.astimezone(UTC)
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        utc.isoformat(timespec="seconds"),
        f"{utc:%Y-%m-%d %H:%M:%S} UTC",
        f"{utc:%-d %b %Y, %H:%M} UTC",
    )


def _day(moment: datetime | None) -> Markup:
    if moment is None:
        return Markup("–")
    utc = moment.astimezone(UTC)
    return Markup('<time datetime="{}" data-day title="{}">{}</time>').format(
        utc.isoformat(timespec="seconds"), f"{utc:%Y-%m-%d %H:%M:%S} UTC", f"{utc:%-d %b %Y}"
    )


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"


def _size(size: int | None) -> str:
    if size is None:
        return "–"
    amount, unit = float(size), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if amount < KIB:
            break
        amount, unit = amount / KIB, larger
    return f"{amount:,.0f} {unit}" if unit == "bytes" else f"{amount:,.1f} {unit}"


def _address(path: str, **query: Any) -> str:  # noqa: ANN401 - whatever a query may hold
    """Return a path with those query parameters that hold something."""
    given = urlencode({name: value for name, value in query.items() if value not in (None, "")})
    return f"{path}?{given}" if given else path


_ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters |= {"time": _time, "day": _day, "percent": _percent, "size": _size}
_ENVIRONMENT.globals |= {
    "root": PREFIX,
    "asset": url_of,
    "address": _address,
    "words": words,
    "version": VERSION,
}
