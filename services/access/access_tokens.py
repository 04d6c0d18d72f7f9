"""Access tokens: what a key gets for OAuth2 client credentials. Opaque and looked up, so that a
revoked key's are dead at once.
"""

from collections.abc import Collection, Sequence
from datetime import timedelta

from sqlalchemy import BindParameter, CompoundSelect, Connection, bindparam, func, select, union_all
from sqlalchemy.orm import Session

from services.access import api_keys
from services.access.api_keys import Principal
from shared.errors import Unauthenticated
from shared.postgres.tables import AccessToken, ApiKey, ConsoleSession
from shared.states import Scope

PREFIX = "eft_"


_KNOWN = (
    select(AccessToken.tenant_id, AccessToken.key_id, AccessToken.scopes)
    .join(ApiKey, ApiKey.id == AccessToken.key_id)
    .where(
        AccessToken.hash == bindparam("hash"), AccessToken.expires_at > func.now(), api_keys.valid()
    )
)


_DIGESTS: BindParameter[Sequence[str]] = bindparam("digests", expanding=True)


def identify(connection: Connection, bearer: str) -> Principal:
    """Return whose bearer this is: an API key, or an access token.

    Raises:
        Unauthenticated: it is unknown, revoked or expired.
    """
    if not bearer.startswith(PREFIX):
        return api_keys.authenticate(connection, bearer)
    token = connection.execute(_KNOWN, {"hash": api_keys.digest(bearer)}).one_or_none()
    if token is None:
        raise Unauthenticated(
            "The access token is unknown or has expired; POST /oauth/token gives a new one."
        )
    return Principal(
        token.tenant_id, token.key_id, frozenset(Scope(scope) for scope in token.scopes)
    )


_GOOD: CompoundSelect[tuple[str]] = union_all(
    select(AccessToken.hash)
    .join(ApiKey, ApiKey.id == AccessToken.key_id)
    .where(AccessToken.hash.in_(_DIGESTS), AccessToken.expires_at > func.now(), api_keys.valid()),
    select(ApiKey.hash).where(ApiKey.hash.in_(_DIGESTS), api_keys.valid()),
    select(ApiKey.previous_hash).where(
        ApiKey.previous_hash.in_(_DIGESTS),
        ApiKey.previous_expires_at > func.now(),
        api_keys.valid(),
    ),
    select(ConsoleSession.hash)
    .join(ApiKey, ApiKey.id == ConsoleSession.key_id)
    .where(
        ConsoleSession.hash.in_(_DIGESTS), ConsoleSession.expires_at > func.now(), api_keys.valid()
    ),
)


def good(connection: Connection, digests: Collection[str]) -> set[str]:
    """Return those digests of keys, tokens and sessions of the console that would still be let
    in.
    """
    return set(connection.scalars(_GOOD, {"digests": sorted(digests)}))


def client(session: Session, client_id: str, client_secret: str) -> Principal | None:
    """Return the key that these client credentials name (its id and its secret), None where they
    name none.
    """
    try:
        principal = api_keys.authenticate(session.connection(), client_secret)
    except Unauthenticated:
        return None
    return principal if principal.key_id == client_id else None


def grantable(owner: Principal, scopes: Collection[str]) -> bool:
    """True if a key may have a token with these scopes: they are its own, or it is an admin's."""
    known = {scope.value for scope in (Scope if Scope.ADMIN in owner.scopes else owner.scopes)}
    return set(scopes) <= known


def issue(session: Session, owner: Principal, scopes: Collection[str], seconds: int) -> str:
    """Make a token that lives for `seconds` and return it; only its hash is kept."""
    token = api_keys.new_secret(PREFIX)
    session.add(
        AccessToken(
            hash=api_keys.digest(token),
            tenant_id=owner.tenant_id,
            key_id=owner.key_id,
            scopes=sorted(set(scopes)),
            expires_at=func.now() + timedelta(seconds=seconds),
        )
    )
    session.flush()
    return token
