"""API keys and the tenants they belong to: made, rotated, revoked, and recognised."""

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import BindParameter, ColumnElement, Connection, and_, bindparam, func, or_, select
from sqlalchemy.orm import Session

from services.audit_log import entries
from services.pages import Page, page_of
from shared.errors import Conflict, InvalidRequest, NotFound, Unauthenticated
from shared.ids import new_id
from shared.postgres.tables import ApiKey, Tenant
from shared.schemas.key import KeyView, NewKey
from shared.states import Scope

PREFIX = "efk_"


@dataclass(frozen=True, slots=True)
class Principal:
    """Whose request it is and what its key may do."""

    tenant_id: str
    key_id: str
    scopes: frozenset[Scope]


def tenant_named(session: Session, name: str) -> Tenant:
    """Return the tenant of this name; make it if there is none."""
    tenant = session.scalar(select(Tenant).where(Tenant.name == name))
    if tenant is None:
        tenant = Tenant(id=new_id("tnt"), name=name)
        session.add(tenant)
        session.flush()  # the key refers to it
    return tenant


def create(
    session: Session,
    *,
    tenant: str,
    name: str,
    scopes: Sequence[Scope],
    expires_at: datetime | None = None,
) -> tuple[ApiKey, str]:
    """Make a key for the tenant of this name and return it with its secret, which is shown once and
    kept nowhere.

    Raises:
        InvalidRequest: it would have expired already.
    """
    tenant_id = tenant_named(session, tenant).id
    return create_for(session, tenant_id, name=name, scopes=scopes, expires_at=expires_at)


def create_for(
    session: Session,
    tenant_id: str,
    *,
    name: str,
    scopes: Sequence[Scope],
    expires_at: datetime | None = None,
    made_by: str | None = None,
) -> tuple[ApiKey, str]:
    """Make a key as `create` does, for a tenant that is there; `made_by` is the key that asks
    for it.
    """
    _check_ahead(expires_at)
    secret = new_secret(PREFIX)
    key = ApiKey(
        id=new_id("key"),
        tenant_id=tenant_id,
        name=name,
        hash=digest(secret),
        scopes=sorted(set(scopes)),
        expires_at=expires_at,
        made_by=made_by,
    )
    session.add(key)
    session.flush()
    session.refresh(key)
    detail = {"scopes": " ".join(key.scopes)}
    entries.write(session, "key.created", key.id, tenant_id=key.tenant_id, detail=detail)
    return key, secret


def rotate(
    session: Session,
    key_id: str,
    *,
    grace_seconds: float,
    tenant_id: str | None = None,
    expires_at: datetime | None = None,
    rotated_by: str | None = None,
) -> tuple[ApiKey, str]:
    """Give a key a new secret and return both; the old secret works for `grace_seconds` more.

    Only one old secret works beside the new one: a second rotation ends the one before. Without
    `expires_at` the key expires when it did. `tenant_id` narrows the search to one tenant, None is
    the operator's view. `rotated_by` is the key that is given the new secret.

    Raises:
        NotFound: there is no such key.
        Conflict: it is revoked or has expired; what is dead is not brought back.
        InvalidRequest: `expires_at` has passed already.
    """
    _check_ahead(expires_at)
    key = _row(session, key_id, tenant_id, lock=True)
    if key.revoked_at is not None or (
        key.expires_at is not None and key.expires_at <= datetime.now(UTC)
    ):
        raise Conflict("The key is revoked or has expired; make a new one instead.")
    secret = new_secret(PREFIX)
    key.previous_hash, key.hash = key.hash, digest(secret)
    key.previous_expires_at = datetime.now(UTC) + timedelta(seconds=grace_seconds)
    key.expires_at = expires_at or key.expires_at
    key.rotated_by = rotated_by
    session.flush()
    entries.write(session, "key.rotated", key.id, tenant_id=key.tenant_id)
    return key, secret


def revoke(session: Session, key_id: str, tenant_id: str | None = None) -> ApiKey:
    """Take a key's validity, and that of its secrets and access tokens; doing it twice is no error.

    Raises:
        NotFound: there is no such key (of this tenant, where one is given).
    """
    key = _row(session, key_id, tenant_id, lock=True)
    if key.revoked_at is None:
        key.revoked_at = datetime.now(UTC)
        entries.write(session, "key.revoked", key.id, tenant_id=key.tenant_id)
    return key


def revoke_with_children(
    session: Session, key_id: str, tenant_id: str | None = None
) -> list[ApiKey]:
    """Revoke a key, and every key whose secret its owner was given: those that it made or rotated,
    and those of these.

    Returns all of them, the key itself first; what was revoked before stays as it was.

    Raises:
        NotFound: there is no such key (of this tenant, where one is given).
    """
    revoked = [revoke(session, key_id, tenant_id)]
    for parent in revoked:  # grows as it goes
        known = [key.id for key in revoked]
        handed_out = or_(ApiKey.made_by == parent.id, ApiKey.rotated_by == parent.id)
        children = session.scalars(
            select(ApiKey.id).where(handed_out, ApiKey.id.not_in(known)).order_by(ApiKey.id)
        )
        revoked += [revoke(session, child) for child in children.all()]
    return revoked


def valid() -> ColumnElement[bool]:
    """Return the condition on `ApiKey` that a key is neither revoked nor expired."""
    return and_(
        ApiKey.revoked_at.is_(None),
        or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > func.now()),
    )


_SECRET: BindParameter[str] = bindparam("hash")
_KNOWN = select(ApiKey.id, ApiKey.tenant_id, ApiKey.scopes).where(
    or_(
        ApiKey.hash == _SECRET,
        and_(ApiKey.previous_hash == _SECRET, ApiKey.previous_expires_at > func.now()),
    ),
    valid(),
)
"""Asked with every request: built once, and without making an object of the row."""


def authenticate(connection: Connection, secret: str) -> Principal:
    """Return whose key this is.

    Raises:
        Unauthenticated: it is unknown, revoked, rotated away or expired; they all look alike.
    """
    key = connection.execute(_KNOWN, {"hash": digest(secret)}).one_or_none()
    if key is None:
        raise Unauthenticated(
            "The API key is unknown, has expired or was revoked; 'efface keys create' or "
            "'efface "
            "keys rotate' makes one."
        )
    return Principal(key.tenant_id, key.id, frozenset(Scope(scope) for scope in key.scopes))


def tenant_of(session: Session, key_id: str) -> str:
    """Return the id of the tenant that a key belongs to.

    Raises:
        NotFound: there is no such key.
    """
    return _row(session, key_id, None).tenant_id


def list_keys(session: Session) -> Sequence[tuple[ApiKey, str]]:
    """Return every key with its tenant's name, oldest first."""
    rows = session.execute(select(ApiKey, Tenant.name).join(Tenant).order_by(ApiKey.created_at))
    return [(key, name) for key, name in rows]


def get(session: Session, tenant_id: str, key_id: str) -> KeyView:
    """Return one key.

    Raises:
        NotFound: the tenant has none of this id.
    """
    return view(_row(session, key_id, tenant_id))


def list_page(
    session: Session, tenant_id: str, *, after: str | None = None, limit: int = 20
) -> Page[KeyView]:
    """Return a page of a tenant's keys, newest first."""
    page = page_of(session, select(ApiKey), ApiKey, tenant_id=tenant_id, after=after, limit=limit)
    return Page([view(row) for row in page.data], page.has_more)


def view(key: ApiKey) -> KeyView:
    """Return a row as clients see it."""
    return KeyView(
        id=key.id,
        name=key.name,
        scopes=tuple(Scope(scope) for scope in key.scopes),
        created_at=key.created_at,
        expires_at=key.expires_at,
        revoked_at=key.revoked_at,
        previous_expires_at=key.previous_expires_at,
        made_by=key.made_by,
        rotated_by=key.rotated_by,
    )


def with_secret(key: ApiKey, secret: str) -> NewKey:
    """Return a row as its maker sees it, this once."""
    return NewKey(**view(key).model_dump(), secret=secret)


def new_secret(prefix: str) -> str:
    """Return 256 random bits as text; the prefix lets scanners of leaked secrets know what they
    found.
    """
    return prefix + secrets.token_urlsafe(32)


def digest(secret: str) -> str:
    """Return what is kept of a secret: its SHA-256, in hex."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def _row(session: Session, key_id: str, tenant_id: str | None, *, lock: bool = False) -> ApiKey:
    query = select(ApiKey).where(ApiKey.id == key_id)
    if tenant_id is not None:
        query = query.where(ApiKey.tenant_id == tenant_id)
    key = session.scalar(query.with_for_update() if lock else query)
    if key is None:
        raise NotFound("key", key_id)
    return key


def _check_ahead(expires_at: datetime | None) -> None:
    if expires_at is not None and expires_at <= datetime.now(UTC):
        raise InvalidRequest.at(
            "/expires_at", "has passed already; give a time that is still to come"
        )
