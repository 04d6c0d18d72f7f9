"""Keys: shown once, kept as a hash, gone when revoked."""

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from services import keys
from shared.errors import NotFound, Unauthenticated
from shared.states import Scope
from shared.tables import ApiKey, Tenant


def test_a_key_says_whose_it_is_and_what_it_may_do(session: Session) -> None:
    row, plaintext = keys.create(session, tenant="acme", name="ci", scopes=[Scope.JOBS_READ, Scope.JOBS_READ])
    principal = keys.authenticate(session, plaintext)
    assert session.get_one(Tenant, principal.tenant_id).name == "acme"
    assert (principal.key_id, principal.scopes) == (row.id, {Scope.JOBS_READ})


def test_the_plaintext_is_kept_nowhere(session: Session) -> None:
    row, plaintext = keys.create(session, tenant="acme", name="ci", scopes=[])
    assert plaintext.startswith("efk_")
    stored = session.execute(select(ApiKey.__table__).where(ApiKey.id == row.id)).one()
    assert plaintext not in {str(value) for value in stored}


def test_a_tenant_is_made_once(session: Session) -> None:
    first, _ = keys.create(session, tenant="acme", name="one", scopes=[])
    second, _ = keys.create(session, tenant="acme", name="two", scopes=[])
    assert first.tenant_id == second.tenant_id
    assert {(key.name, tenant) for key, tenant in keys.list_keys(session)} == {("one", "acme"), ("two", "acme")}


def test_unknown_and_revoked_keys_look_alike(session: Session) -> None:
    row, plaintext = keys.create(session, tenant="acme", name="ci", scopes=[])
    keys.revoke(session, row.id)
    revoked_at = row.revoked_at
    keys.revoke(session, row.id)
    assert row.revoked_at == revoked_at
    messages = set()
    for token in (plaintext, "efk_unknown", "", "\udcff"):
        with pytest.raises(Unauthenticated) as caught:
            keys.authenticate(session, token)
        messages.add(caught.value.detail)
    assert len(messages) == 1


def test_revoking_what_is_not_there(session: Session) -> None:
    with pytest.raises(NotFound):
        keys.revoke(session, "key_none")
