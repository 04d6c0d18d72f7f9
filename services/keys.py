"""API keys and the tenants they belong to."""

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from services import audit_log
from shared.errors import NotFound, Unauthenticated
from shared.ids import new_id
from shared.states import Scope
from shared.tables import ApiKey, Tenant

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


def create(session: Session, *, tenant: str, name: str, scopes: Sequence[Scope]) -> tuple[ApiKey, str]:
    """Make a key and return it with its plaintext, which is shown once and kept nowhere."""
    plaintext = PREFIX + secrets.token_urlsafe(32)
    key = ApiKey(
        id=new_id("key"),
        tenant_id=tenant_named(session, tenant).id,
        name=name,
        hash=_hash(plaintext),
        scopes=sorted(set(scopes)),
    )
    session.add(key)
    session.flush()
    detail = {"scopes": " ".join(key.scopes)}
    audit_log.write(session, "key.created", key.id, tenant_id=key.tenant_id, detail=detail)
    return key, plaintext


def authenticate(session: Session, token: str) -> Principal:
    """Return whose key this is.

    Raises:
        Unauthenticated: it is unknown or revoked; the two look alike.
    """
    key = session.scalar(select(ApiKey).where(ApiKey.hash == _hash(token), ApiKey.revoked_at.is_(None)))
    if key is None:
        raise Unauthenticated("The API key is unknown or was revoked; 'efface keys create' makes a new one.")
    return Principal(key.tenant_id, key.id, frozenset(Scope(scope) for scope in key.scopes))


def list_keys(session: Session) -> Sequence[tuple[ApiKey, str]]:
    """Return every key with its tenant's name, oldest first."""
    rows = session.execute(select(ApiKey, Tenant.name).join(Tenant).order_by(ApiKey.created_at))
    return [(key, name) for key, name in rows]


def revoke(session: Session, key_id: str) -> None:
    """Take a key's validity; doing it twice is no error.

    Raises:
        NotFound: there is no such key.
    """
    key = session.get(ApiKey, key_id)
    if key is None:
        raise NotFound("key", key_id)
    if key.revoked_at is None:
        key.revoked_at = datetime.now(UTC)
        audit_log.write(session, "key.revoked", key.id, tenant_id=key.tenant_id)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
