"""The public keys that the service publishes, so that anyone can check its certificates."""

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared.crypto.certificate_keys import Signer
from shared.crypto.public_keys import PublicKeys, public_pem, read_public_keys
from shared.errors import Conflict
from shared.postgres.tables import SigningKey


def publish(session: Session, signer: Signer) -> None:
    """Publish the public half of a key, in the transaction of what it signed. One that was
    revoked stays revoked.
    """
    row = {"id": signer.key_id, "public_key": public_pem(signer.public_key).decode()}
    session.execute(insert(SigningKey).values(row).on_conflict_do_nothing())


def published(session: Session) -> PublicKeys:
    """Return the keys under which certificates may be checked, oldest first: all but those that
    were revoked.
    """
    query = (
        select(SigningKey.public_key)
        .where(SigningKey.revoked_at.is_(None))
        .order_by(SigningKey.created_at)
    )
    return {
        key_id: key
        for pem in session.scalars(query)
        for key_id, key in read_public_keys(pem.encode()).items()
    }


def revoke(session: Session, key_id: str) -> None:
    """Publish a key no longer: whoever asks then takes what it signed for signed by nobody. Twice
    is no error.

    Raises:
        Conflict: the service publishes no such key.
    """
    key = session.get(SigningKey, key_id)
    if key is None:
        raise Conflict(
            f"The service has never published a key {key_id!r}; 'efface keys signing list' "
            "lists "
            "those it has."
        )
    key.revoked_at = key.revoked_at or func.now()
