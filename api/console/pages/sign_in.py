"""Signing in, with an API key or by a link, and signing out."""

from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Request, Response
from pydantic import AfterValidator, Field, TypeAdapter, ValidationError
from starlette.concurrency import run_in_threadpool

from api.console import PREFIX, cookies
from api.console.gate import HOME
from api.console.page import FormDep, MeDep, Page, go
from api.console.rendering import render
from api.dependencies import PartsDep
from api.parts import Parts
from services.access import console_sessions
from services.audit_log.entries import ACTOR, PERSON
from shared.errors import Unauthenticated
from shared.schemas.base import printable

router = APIRouter(route_class=Page)

Person = Annotated[str, Field(min_length=1, max_length=60), AfterValidator(printable)]
_PERSON = TypeAdapter[str](Person)
NO_NAME = (
    "Say who you are: up to 60 characters on one line. It stands in the audit log beside "
    "what you do."
)
NO_KEY = "The API key is unknown, has expired or was revoked."


@router.get("/sign-in")
def sign_in_page(
    request: Request,
    parts: PartsDep,
    link: str = "",
    next: str = "",  # noqa: A002 - the query's own name
    done: str = "",
) -> Response:
    """Show the form; a link is looked at, and used up only when the form is sent."""
    key_name = None
    if link:
        with parts.database.look() as connection:
            key_name = console_sessions.key_of_link(connection, link)
    problem = console_sessions.SPENT if link and key_name is None else None
    return _form(
        request,
        link=link if key_name else "",
        key_name=key_name,
        goal=next,
        problem=problem,
        done=done,
    )


@router.post("/sign-in")
async def sign_in(request: Request, parts: PartsDep, form: FormDep) -> Response:
    """Begin a session under a new id, whatever cookie there was, and go where the person wanted
    to go.
    """
    link, goal = form.get("link") or "", form.get("next") or ""
    try:
        person = _PERSON.validate_python(form.text("person"))
        cookie = await run_in_threadpool(_begin, parts, form.get("key") or "", link, person)
    except ValidationError:
        return _form(request, link=link, key_name=None, goal=goal, problem=NO_NAME, status=422)
    except Unauthenticated:
        problem = console_sessions.SPENT if link else NO_KEY
        return _form(request, link="", key_name=None, goal=goal, problem=problem, status=401)
    response = go(safe(goal))
    cookies.write(
        request, response, cookies.SESSION, cookie, parts.settings.console_session_seconds
    )
    cookies.write(request, response, cookies.FORM, "", 0)
    return response


@router.post("/sign-out")
def sign_out(request: Request, parts: PartsDep, me: MeDep) -> Response:
    """End the session, and with it the event streams that it has opened."""
    with parts.database.transaction() as session:
        session.info |= {ACTOR: me.principal.key_id, PERSON: me.person}
        console_sessions.sign_out(session, me.digest)
    response = go(f"{PREFIX}/sign-in?done=signed_out")
    cookies.write(request, response, cookies.SESSION, "", 0)
    return response


def safe(goal: str) -> str:
    """Return where to go after signing in: a page of the console, never another site."""
    parts = urlsplit(goal)
    plain = goal.isascii() and goal.isprintable() and "\\" not in goal
    inside = (
        not parts.scheme
        and not parts.netloc
        and parts.path.startswith(HOME)
        and "//" not in parts.path
    )
    return goal if plain and inside and "/../" not in f"{parts.path}/" else HOME


def _begin(parts: Parts, key: str, link: str, person: str) -> str:
    seconds = parts.settings.console_session_seconds
    with parts.database.transaction() as session:
        if link:
            return console_sessions.sign_in_by_link(session, link, person, seconds)
        return console_sessions.sign_in(session, key, person, seconds)


def _form(
    request: Request,
    *,
    link: str,
    key_name: str | None,
    goal: str,
    problem: str | None,
    done: str = "",
    status: int = 200,
) -> Response:
    """Return the form with a token of its own; somebody who is signed in already gets one, too,
    to change the key.
    """
    signed_in = getattr(request.state, "signed_in", None)
    cookie = (
        cookies.read(request, cookies.SESSION if signed_in else cookies.FORM) or cookies.new_value()
    )
    page = render(
        request,
        "sign_in.html",
        status=status,
        link=link,
        key_name=key_name,
        goal=safe(goal) if goal else "",
        problem=problem,
        done=done,
        csrf=cookies.token(cookie),
    )
    if not signed_in:
        cookies.write(request, page, cookies.FORM, cookie, cookies.FORM_SECONDS)
    return page
