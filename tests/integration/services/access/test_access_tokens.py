"""Access tokens: no more than their key may, no longer than it lives, and gone when they are over."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from services.access import access_tokens, api_keys
from services.access.api_keys import Principal
from services.purging import expired_rows
from shared.errors import Unauthenticated
from shared.postgres.tables import AccessToken, ApiKey
from shared.settings import Settings
from shared.states import Scope


@pytest.fixture
def key(session: Session) -> tuple[ApiKey, str]:
    """A key and its secret."""
    return api_keys.create(session, tenant="acme", name="ci", scopes=[Scope.JOBS_READ, Scope.JOBS_WRITE])


@pytest.fixture
def owner(session: Session, key: tuple[ApiKey, str]) -> Principal:
    """The key's principal."""
    return api_keys.authenticate(session.connection(), key[1])


def test_a_token_is_its_keys_with_the_scopes_that_it_got(session: Session, owner: Principal) -> None:
    token = access_tokens.issue(session, owner, ["jobs:read"], 60)
    assert access_tokens.identify(session.connection(), token) == Principal(
        owner.tenant_id, owner.key_id, frozenset({Scope.JOBS_READ})
    )
    assert token not in {str(value) for value in session.execute(select(AccessToken.__table__)).one()}


def test_a_bearer_is_a_key_or_a_token(session: Session, owner: Principal, key: tuple[ApiKey, str]) -> None:
    assert access_tokens.identify(session.connection(), key[1]) == owner


def test_client_credentials_are_an_id_and_its_own_secret(session: Session, key: tuple[ApiKey, str]) -> None:
    row, secret = key
    other, _ = api_keys.create(session, tenant="acme", name="other", scopes=[])
    assert access_tokens.client(session, row.id, secret) == api_keys.authenticate(session.connection(), secret)
    for client_id, wrong in [(other.id, secret), (row.id, "efk_x"), ("", secret), (row.id, ""), ("\0", "\0")]:
        assert access_tokens.client(session, client_id, wrong) is None


def test_a_key_grants_its_own_scopes_and_an_admins_every_one(owner: Principal) -> None:
    assert access_tokens.grantable(owner, ["jobs:read"])
    assert not access_tokens.grantable(owner, ["jobs:read", "models:read"])
    assert not access_tokens.grantable(owner, ["admin"])
    admin = Principal("t", "k", frozenset({Scope.ADMIN}))
    assert access_tokens.grantable(admin, [scope.value for scope in Scope])
    assert not access_tokens.grantable(admin, ["everything"])


@pytest.mark.parametrize(
    "ending",
    [
        update(AccessToken).values(expires_at=datetime.now(UTC) - timedelta(seconds=1)),
        update(ApiKey).values(revoked_at=datetime.now(UTC)),
        update(ApiKey).values(expires_at=datetime.now(UTC) - timedelta(seconds=1)),
    ],
    ids=["it expires", "its key is revoked", "its key expires"],
)
def test_a_token_ends(session: Session, owner: Principal, ending: object) -> None:
    token = access_tokens.issue(session, owner, ["jobs:read"], 60)
    session.execute(ending)  # type: ignore[call-overload]
    for dead in (token, access_tokens.PREFIX + "unknown"):
        with pytest.raises(Unauthenticated):
            access_tokens.identify(session.connection(), dead)


def test_a_token_outlives_the_rotation_of_its_key(session: Session, owner: Principal) -> None:
    token = access_tokens.issue(session, owner, ["jobs:read"], 60)
    api_keys.rotate(session, owner.key_id, grace_seconds=0)
    assert access_tokens.identify(session.connection(), token).key_id == owner.key_id


def test_the_sweep_deletes_expired_tokens_alone(session: Session, owner: Principal, settings: Settings) -> None:
    access_tokens.issue(session, owner, [], -1)
    living = access_tokens.issue(session, owner, [], 60)
    expired_rows.sweep(session, settings)
    assert session.scalar(select(func.count()).select_from(AccessToken)) == 1
    assert access_tokens.identify(session.connection(), living)
