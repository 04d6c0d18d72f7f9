"""Signed heads of the audit log: how long the chain was at a time, and its hash there, under
Ed25519 (RFC 8032).

A chain alone cannot show that its end was cut off. A head that lies elsewhere can: one is signed
with each batch that is linked, the newest lies in the object storage, and an operator keeps
others where neither Postgres nor the storage reaches (`efface audit head`)."""

import base64
import binascii
import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import rfc8785
import structlog
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from services.audit_log import chain
from shared.crypto import public_keys
from shared.errors import InvalidRequest, Unavailable
from shared.ports.object_storage import ObjectMissing, Storage
from shared.postgres.database import Database
from shared.postgres.tables import AuditHead
from shared.schemas.audit_head import HeadStatement, SignedHead
from shared.settings import Settings

STORED_HEAD = "audit/head.json"

log = structlog.get_logger()


def new_key() -> str:
    """Return a new private key, as PEM (PKCS #8)."""
    return (
        Ed25519PrivateKey.generate()
        .private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        .decode()
    )


def private_key(path: Path) -> Ed25519PrivateKey:
    """Return the private key in a file.

    Raises:
        Unavailable: there is none.
    """
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise Unavailable(
            f"EFFACE_AUDIT_KEY_FILE {path} holds no private key in PEM: {error}"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise Unavailable(f"EFFACE_AUDIT_KEY_FILE {path} must hold an Ed25519 key.")
    return key


def public_key(path: Path) -> Ed25519PublicKey:
    """Return the public key in a file.

    Raises:
        InvalidRequest: there is none.
    """
    try:
        key = load_pem_public_key(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InvalidRequest.at("/key", f"{path} holds no public key in PEM: {error}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise InvalidRequest.at("/key", f"{path} must hold an Ed25519 key")
    if public_keys.has_small_order(key):
        raise InvalidRequest.at(
            "/key", f"{path} holds a key of small order, under which anything is signed"
        )
    return key


def public_pem(key: Ed25519PrivateKey) -> str:
    """Return the public half of a key, as PEM: what `verify` needs."""
    return public_keys.public_pem(key.public_key()).decode()


def sign(session: Session, key: Ed25519PrivateKey) -> SignedHead | None:
    """Sign the end of the chain and write it down; None where that was signed before."""
    at = chain.last(session)
    statement = HeadStatement(
        seq=at.seq, hash=at.hash, signed_at=datetime.now(UTC), key=key_id(key.public_key())
    )
    plain = statement.model_dump(mode="json")
    head = SignedHead(
        statement=statement, signature=base64.b64encode(key.sign(rfc8785.dumps(plain))).decode()
    )
    row = insert(AuditHead).values(seq=at.seq, statement=plain, signature=head.signature)
    written = session.scalar(row.on_conflict_do_nothing().returning(AuditHead.seq))
    return head if written is not None else None


class Keeper:
    """Extends the chain, signs its end with every batch, and keeps the newest head in the storage:
    the relay's part.

    A head that lies in the storage and does not belong to this chain stays there: it proves that
    something was cut off."""

    def __init__(self, database: Database, storage: Storage, settings: Settings) -> None:
        self._database, self._storage, self._key_file = database, storage, settings.audit_key_file
        self._looked_at: int | None = None
        """The newest head that the storage was compared with, None before the first and after a
        failure.
        """

    def round(self) -> int:
        """Link what waits, sign the end in the same transaction, store the head; return how many
        entries were linked.

        Raises:
            Unavailable: there is no key where one should be (entries are linked all the same), or
                no storage.
        """
        key, unavailable = self._key()
        with self._database.transaction() as session:
            linked = chain.extend(session)
            head = newest(session)
            if key is not None and (head is None or head.statement.seq != chain.last(session).seq):
                head = sign(session, key) or newest(session)
        if unavailable is not None:
            raise unavailable
        if key is not None and head is not None and head.statement.seq != self._looked_at:
            self._looked_at = None
            self._store(head)
            self._looked_at = head.statement.seq
        return linked

    def _key(self) -> tuple[Ed25519PrivateKey | None, Unavailable | None]:
        try:
            return (private_key(self._key_file) if self._key_file is not None else None), None
        except Unavailable as error:
            return None, error

    def _store(self, head: SignedHead) -> None:
        """Put a head into the storage, unless what lies there is newer or does not belong to
        this chain.
        """
        stored = read_stored(self._storage)
        if stored is not None:
            with self._database.transaction() as session:
                found = chain.hash_at(session, stored.statement.seq)
            if found != stored.statement.hash:
                log.error(
                    "audit.head_does_not_fit", key=STORED_HEAD, hint="run 'efface audit verify'"
                )
                return
            if stored.statement.seq >= head.statement.seq:
                return
        self._storage.put(STORED_HEAD, head.model_dump_json().encode())


def newest(session: Session) -> SignedHead | None:
    """Return the newest head that was written down."""
    row = session.scalar(select(AuditHead).order_by(AuditHead.seq.desc()).limit(1))
    return _view(row) if row else None


def read_stored(storage: Storage) -> SignedHead | None:
    """Return the head in the storage, if there is one."""
    try:
        return parse(storage.get(STORED_HEAD), STORED_HEAD)
    except ObjectMissing:
        return None


def parse(content: bytes, where: str) -> SignedHead:
    """Return a head from a file.

    Raises:
        InvalidRequest: it is none.
    """
    try:
        return SignedHead.model_validate_json(content)
    except ValidationError as error:
        raise InvalidRequest.at("/head", f"{where} is no signed head of an audit log") from error


def check(
    session: Session, keys: Iterable[Ed25519PublicKey], others: Iterable[SignedHead] = ()
) -> list[str]:
    """Return what is wrong with the heads: those of the database, and `others` that were kept
    elsewhere.

    That there is none at all is wrong, too: the relay signs one with the first batch, and of an
    empty log."""
    known, others = {key_id(key): key for key in keys}, list(others)
    rows = session.scalars(
        select(AuditHead).order_by(AuditHead.seq).execution_options(yield_per=1000)
    )
    findings, none = [], True
    for row in rows:
        none = False
        findings += _wrong(session, _view(row), known)
    if none:
        findings.append(
            "no signed head: they were deleted, or no relay has run since there is a key "
            "('efface "
            "audit head' signs one)"
        )
    return findings + [finding for head in others for finding in _wrong(session, head, known)]


def key_id(key: Ed25519PublicKey) -> str:
    """Return the name of a key: the first 16 hexadecimal digits of the SHA-256 of its 32 bytes."""
    return hashlib.sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[:16]


def _wrong(session: Session, head: SignedHead, keys: dict[str, Ed25519PublicKey]) -> list[str]:
    stated = head.statement
    name = f"head of {stated.signed_at:%Y-%m-%d %H:%M:%S} at seq {stated.seq}"
    if stated.key not in keys:
        return [f"{name}: signed with the key {stated.key}, which was not given"]
    try:
        keys[stated.key].verify(
            base64.b64decode(head.signature), rfc8785.dumps(stated.model_dump(mode="json"))
        )
    except (InvalidSignature, binascii.Error):
        return [f"{name}: its signature is wrong"]
    found = chain.hash_at(session, stated.seq)
    if found is None:
        return [f"{name}: the log ends before it; its end was cut off"]
    return (
        []
        if found == stated.hash
        else [f"{name}: the log has another hash there; it was written anew"]
    )


def _view(row: AuditHead) -> SignedHead:
    return SignedHead.model_validate({"statement": row.statement, "signature": row.signature})
