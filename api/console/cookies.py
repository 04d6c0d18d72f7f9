"""The console's cookies, and the tokens of its forms.

A cookie holds 256 random bits, and the database their hash: there is nothing in it that could be
forged, so nothing to sign. A form's token is computed from the cookie that the form was made
for."""

import hashlib
import hmac
import secrets

from fastapi import Request, Response

from api.parts import parts_of
from shared.settings import Settings

SESSION = "efface_console"
FORM = "efface_console_form"
"""Of the one form that is there before anybody is signed in."""
FORM_SECONDS = 3600
SECURE_PREFIX = "__Host-"
"""A browser takes a cookie of such a name over TLS alone, and for this host alone."""


def is_secure(request: Request) -> bool:
    """True where people reach the console by https."""
    settings: Settings = parts_of(request).settings
    return request.url.scheme == "https" or (settings.public_url or "").startswith("https://")


def read(request: Request, name: str) -> str:
    """Return the value of a cookie, empty where there is none."""
    return request.cookies.get(_name(request, name), "")


def write(request: Request, response: Response, name: str, value: str, seconds: int) -> None:
    """Set a cookie; 0 seconds take it away."""
    response.set_cookie(
        _name(request, name),
        value,
        max_age=seconds,
        path="/",
        secure=is_secure(request),
        httponly=True,
        samesite="strict",
    )


def new_value() -> str:
    """Return 256 random bits."""
    return secrets.token_urlsafe(32)


def token(cookie: str) -> str:
    """Return the token of forms that go with a cookie."""
    return hmac.new(cookie.encode(), b"efface console form", hashlib.sha256).hexdigest()


def fits(cookie: str, given: str) -> bool:
    """True if a form's token was made for this cookie."""
    return bool(cookie) and hmac.compare_digest(token(cookie).encode(), given.encode())


def _name(request: Request, name: str) -> str:
    return SECURE_PREFIX + name if is_secure(request) else name
