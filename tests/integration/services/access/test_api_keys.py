"""Keys: shown once, kept as a hash, gone when revoked."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from services.access import api_keys
from shared.errors import Conflict, InvalidRequest, NotFound, Unauthenticated
from shared.postgres.tables import ApiKey, Tenant
from shared.states import Scope


def test_a_key_says_whose_it_is_and_what_it_may_do(session: Session) -> None:
    row, plaintext = api_keys.create(session, tenant="acme", name="ci", scopes=[Scope.JOBS_READ, Scope.JOBS_READ])
    principal = api_keys.authenticate(session.connection(), plaintext)
    assert session.get_one(Tenant, principal.tenant_id).name == "acme"
    assert (principal.key_id, principal.scopes) == (row.id, {Scope.JOBS_READ})


def test_the_plaintext_is_kept_nowhere(session: Session) -> None:
    row, plaintext = api_keys.create(session, tenant="acme", name="ci", scopes=[])
    assert plaintext.startswith("efk_")
    stored = session.execute(select(ApiKey.__table__).where(ApiKey.id == row.id)).one()
    assert plaintext not in {str(value) for value in stored}


def test_a_tenant_is_made_once(session: Session) -> None:
    first, _ = api_keys.create(session, tenant="acme", name="one", scopes=[])
    second, _ = api_keys.create(session, tenant="acme", name="two", scopes=[])
    assert first.tenant_id == second.tenant_id
    assert {(key.name, tenant) for key, tenant in api_keys.list_keys(session)} == {("one", "acme"), ("two", "acme")}


def test_unknown_and_revoked_keys_look_alike(session: Session) -> None:
    row, plaintext = api_keys.create(session, tenant="acme", name="ci", scopes=[])
    api_keys.revoke(session, row.id)
    revoked_at = row.revoked_at
    api_keys.revoke(session, row.id)
    assert row.revoked_at == revoked_at
    messages = set()
    for token in (plaintext, "efk_unknown", "", "\udcff"):
        with pytest.raises(Unauthenticated) as caught:
            api_keys.authenticate(session.connection(), token)
        messages.add(caught.value.detail)
    assert len(messages) == 1


def test_a_key_is_revoked_with_those_whose_secrets_its_owner_holds(session: Session) -> None:
    """Made by it or rotated by it, and what these made in turn; nothing else, and nobody else's."""
    root, _ = api_keys.create(session, tenant="acme", name="root", scopes=[Scope.ADMIN])
    stolen, _ = api_keys.create(session, tenant="acme", name="stolen", scopes=[Scope.ADMIN])

    def made(name: str, by: ApiKey) -> ApiKey:
        return api_keys.create_for(session, by.tenant_id, name=name, scopes=[Scope.ADMIN], made_by=by.id)[0]

    child, other, taken = made("child", stolen), made("other", root), made("taken", root)
    grandchild = made("grandchild", child)
    api_keys.rotate(session, taken.id, grace_seconds=0, rotated_by=grandchild.id)
    api_keys.rotate(session, stolen.id, grace_seconds=0, rotated_by=child.id)  # a circle
    revoked = api_keys.revoke_with_children(session, stolen.id, stolen.tenant_id)
    assert [key.id for key in revoked] == [stolen.id, child.id, grandchild.id, taken.id]
    assert all(key.revoked_at is not None for key in revoked)
    assert [key.revoked_at for key in (root, other)] == [None, None]
    with pytest.raises(NotFound):
        api_keys.revoke_with_children(session, root.id, "tnt_another")


def test_who_is_given_a_secret_is_kept(session: Session) -> None:
    root, _ = api_keys.create(session, tenant="acme", name="root", scopes=[Scope.ADMIN])
    key, _ = api_keys.create_for(session, root.tenant_id, name="ci", scopes=[], made_by=root.id)
    assert (root.made_by, api_keys.view(key).made_by, api_keys.view(key).rotated_by) == (None, root.id, None)
    api_keys.rotate(session, key.id, grace_seconds=0, rotated_by=root.id)
    assert key.rotated_by == root.id
    api_keys.rotate(session, key.id, grace_seconds=0)  # by the operator
    assert (key.made_by, key.rotated_by) == (root.id, None)


def test_revoking_what_is_not_there(session: Session) -> None:
    with pytest.raises(NotFound):
        api_keys.revoke(session, "key_none")


def test_a_rotated_keys_old_secret_works_until_the_grace_ends(session: Session) -> None:
    row, old = api_keys.create(session, tenant="acme", name="ci", scopes=[])
    _, new = api_keys.rotate(session, row.id, grace_seconds=60)
    assert api_keys.authenticate(session.connection(), old) == api_keys.authenticate(session.connection(), new)
    row.previous_expires_at = datetime.now(UTC) - timedelta(seconds=1)
    session.flush()
    assert api_keys.authenticate(session.connection(), new).key_id == row.id
    with pytest.raises(Unauthenticated):
        api_keys.authenticate(session.connection(), old)


def test_without_grace_the_old_secret_ends_at_once(session: Session) -> None:
    row, old = api_keys.create(session, tenant="acme", name="ci", scopes=[])
    api_keys.rotate(session, row.id, grace_seconds=-1)  # what 0 is a moment later
    with pytest.raises(Unauthenticated):
        api_keys.authenticate(session.connection(), old)


def test_only_the_last_two_secrets_work(session: Session) -> None:
    row, first = api_keys.create(session, tenant="acme", name="ci", scopes=[])
    _, second = api_keys.rotate(session, row.id, grace_seconds=60)
    _, third = api_keys.rotate(session, row.id, grace_seconds=60)
    with pytest.raises(Unauthenticated):
        api_keys.authenticate(session.connection(), first)
    assert {api_keys.authenticate(session.connection(), secret).key_id for secret in (second, third)} == {row.id}


def test_an_expired_key_is_a_strangers_and_cannot_be_rotated(session: Session) -> None:
    soon = datetime.now(UTC) + timedelta(days=1)
    row, secret = api_keys.create(session, tenant="acme", name="ci", scopes=[], expires_at=soon)
    assert api_keys.authenticate(session.connection(), secret).key_id == row.id
    row.expires_at = datetime.now(UTC) - timedelta(seconds=1)
    session.flush()
    with pytest.raises(Unauthenticated):
        api_keys.authenticate(session.connection(), secret)
    with pytest.raises(Conflict):
        api_keys.rotate(session, row.id, grace_seconds=60)


def test_rotation_can_put_the_end_off_and_else_keeps_it(session: Session) -> None:
    soon, later = (datetime.now(UTC) + timedelta(days=days) for days in (1, 2))
    row, _ = api_keys.create(session, tenant="acme", name="ci", scopes=[], expires_at=soon)
    api_keys.rotate(session, row.id, grace_seconds=60)
    assert row.expires_at == soon
    api_keys.rotate(session, row.id, grace_seconds=60, expires_at=later)
    assert row.expires_at == later


def test_an_end_that_has_passed_is_refused(session: Session) -> None:
    row, _ = api_keys.create(session, tenant="acme", name="ci", scopes=[])
    past = datetime.now(UTC) - timedelta(seconds=1)
    for wrong in (
        lambda: api_keys.create(session, tenant="acme", name="ci", scopes=[], expires_at=past),
        lambda: api_keys.rotate(session, row.id, grace_seconds=60, expires_at=past),
    ):
        with pytest.raises(InvalidRequest, match="/expires_at"):
            wrong()


def test_a_revoked_key_cannot_be_rotated_and_neither_of_its_secrets_works(session: Session) -> None:
    row, old = api_keys.create(session, tenant="acme", name="ci", scopes=[])
    _, new = api_keys.rotate(session, row.id, grace_seconds=60)
    api_keys.revoke(session, row.id)
    with pytest.raises(Conflict):
        api_keys.rotate(session, row.id, grace_seconds=60)
    for secret in (old, new):
        with pytest.raises(Unauthenticated):
            api_keys.authenticate(session.connection(), secret)


def test_another_tenants_key_is_not_found(session: Session, stranger: str) -> None:
    row, _ = api_keys.create(session, tenant="acme", name="ci", scopes=[])
    for forbidden in (
        lambda: api_keys.get(session, stranger, row.id),
        lambda: api_keys.rotate(session, row.id, tenant_id=stranger, grace_seconds=60),
        lambda: api_keys.revoke(session, row.id, stranger),
    ):
        with pytest.raises(NotFound):
            forbidden()
    assert api_keys.list_page(session, stranger).data == []
    assert row.revoked_at is None
