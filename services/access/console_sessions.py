"""People at the console: signed in with an API key, or by a link that works once, until their time
or their key ends.

A session is opaque and looked up, as an access token is: what is revoked or signed out is dead
at once."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, bindparam, delete, func, select
from sqlalchemy.orm import Session

from services.access import api_keys
from services.access.api_keys import Principal
from services.audit_log import entries
from shared.errors import Unauthenticated
from shared.ids import new_id
from shared.postgres.tables import ApiKey, ConsoleLink, ConsoleSession, Tenant
from shared.states import Scope

PREFIX = "efs_"
LINK_PREFIX = "efl_"
SPENT = "This link was used already, or its time is over; 'efface keys link' makes another one."


@dataclass(frozen=True, slots=True)
class SignedIn:
    """Somebody at the console."""

    principal: Principal
    """The tenant, and what the key may do at this moment."""
    person: str
    key_name: str
    tenant: str
    """The tenant's name."""
    expires_at: datetime
    digest: str
    """Of the cookie: the credential that event streams are opened with."""


_KNOWN = (
    select(
        ConsoleSession.tenant_id,
        ConsoleSession.key_id,
        ConsoleSession.person,
        ConsoleSession.expires_at,
        ApiKey.scopes,
        ApiKey.name.label("key_name"),
        Tenant.name.label("tenant"),
    )
    .join(ApiKey, ApiKey.id == ConsoleSession.key_id)
    .join(Tenant, Tenant.id == ConsoleSession.tenant_id)
    .where(
        ConsoleSession.hash == bindparam("hash"),
        ConsoleSession.expires_at > func.now(),
        api_keys.valid(),
    )
)
"""Asked with every page."""


def identify(connection: Connection, cookie: str) -> SignedIn | None:
    """Return whose session this is, None where it is over, unknown, or its key is."""
    digest = api_keys.digest(cookie)
    row = connection.execute(_KNOWN, {"hash": digest}).one_or_none()
    if row is None:
        return None
    principal = Principal(
        row.tenant_id, row.key_id, frozenset(Scope(scope) for scope in row.scopes)
    )
    return SignedIn(principal, row.person, row.key_name, row.tenant, row.expires_at, digest)


def sign_in(session: Session, secret: str, person: str, seconds: int) -> str:
    """Begin a session with an API key, and return what goes into the cookie; only its hash is kept.

    Raises:
        Unauthenticated: it is no key that works.
    """
    caller = api_keys.authenticate(session.connection(), secret)
    return _begin(session, caller.tenant_id, caller.key_id, person, seconds)


def sign_in_by_link(session: Session, link: str, person: str, seconds: int) -> str:
    """Begin a session by a link, which is used up with it.

    Raises:
        Unauthenticated: it was used, its time is over, or its key's.
    """
    used = delete(ConsoleLink).where(
        ConsoleLink.hash == api_keys.digest(link), ConsoleLink.expires_at > func.now()
    )
    row = session.execute(used.returning(ConsoleLink.tenant_id, ConsoleLink.key_id)).one_or_none()
    good = row and session.scalar(
        select(ApiKey.id).where(ApiKey.id == row.key_id, api_keys.valid())
    )
    if row is None or not good:
        raise Unauthenticated(SPENT)
    return _begin(session, row.tenant_id, row.key_id, person, seconds)


def make_link(session: Session, key_id: str, seconds: int) -> str:
    """Make a link for a key and return it; only its hash is kept.

    Raises:
        NotFound: there is no such key.
        Unauthenticated: it is revoked or has expired.
    """
    tenant_id = api_keys.tenant_of(session, key_id)
    if session.scalar(select(ApiKey.id).where(ApiKey.id == key_id, api_keys.valid())) is None:
        raise Unauthenticated(
            "The key is revoked or has expired; 'efface keys create' makes a new one."
        )
    link = api_keys.new_secret(LINK_PREFIX)
    expires_at = func.now() + timedelta(seconds=seconds)
    session.add(
        ConsoleLink(
            hash=api_keys.digest(link), tenant_id=tenant_id, key_id=key_id, expires_at=expires_at
        )
    )
    session.flush()
    entries.write(session, "console.link_made", key_id, tenant_id=tenant_id)
    return link


def key_of_link(connection: Connection, link: str) -> str | None:
    """Return the name of the key that a link signs in with, without using it up; None where it
    works no more.
    """
    query = select(ApiKey.name).join(ConsoleLink, ConsoleLink.key_id == ApiKey.id)
    good = (
        ConsoleLink.hash == api_keys.digest(link),
        ConsoleLink.expires_at > func.now(),
        api_keys.valid(),
    )
    return connection.execute(query.where(*good)).scalar_one_or_none()


def sign_out(session: Session, digest: str) -> None:
    """End a session; event streams that were opened with it end within seconds."""
    ended = delete(ConsoleSession).where(ConsoleSession.hash == digest)
    row = session.execute(
        ended.returning(ConsoleSession.id, ConsoleSession.tenant_id)
    ).one_or_none()
    if row is not None:
        entries.write(session, "console.signed_out", row.id, tenant_id=row.tenant_id)


def _begin(session: Session, tenant_id: str, key_id: str, person: str, seconds: int) -> str:
    cookie = api_keys.new_secret(PREFIX)
    row = ConsoleSession(
        hash=api_keys.digest(cookie),
        id=new_id("ses"),
        tenant_id=tenant_id,
        key_id=key_id,
        person=person,
        expires_at=func.now() + timedelta(seconds=seconds),
    )
    session.add(row)
    session.flush()
    session.info |= {entries.ACTOR: key_id, entries.PERSON: person}
    entries.write(session, "console.signed_in", row.id, tenant_id=tenant_id)
    return cookie
