"""DSSE envelopes (Dead Simple Signing Envelope, version 1.0.2) with Ed25519 signatures.

Bytes in, bytes out: what is signed is not looked at here.

An envelope carries one field besides those of the specification, which allows that:
`payloadDigest`, the SHA-256 of the payload. It is not signed and proves nothing. It tells damage
from forgery: where it does not match, the payload was changed after it was signed; where it does
and the signature still fails, the signature is not of this payload."""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.crypto.certificate_keys import Signer


class NotAnEnvelope(ValueError):
    """These bytes are no DSSE envelope."""


class EnvelopeSignature(BaseModel):
    """One signature over the payload and its type."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    keyid: str = Field("", description="names the key; a hint that is not signed")
    sig: str = Field(description="base64")


class Envelope(BaseModel):
    """The JSON envelope. Fields that a newer version may add are ignored, as the specification
    wants it.
    """

    model_config = ConfigDict(
        extra="ignore", frozen=True, populate_by_name=True, serialize_by_alias=True
    )

    payload: str = Field(description="base64 of what is signed")
    payload_type: str = Field(alias="payloadType", examples=["application/vnd.in-toto+json"])
    payload_digest: str | None = Field(
        None,
        alias="payloadDigest",
        description="SHA-256 of the payload, to tell damage from forgery; not signed",
    )
    signatures: tuple[EnvelopeSignature, ...] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class Opened:
    """An envelope whose parts were decoded. Nothing in it is to be trusted before `signed_by`."""

    payload: bytes
    payload_type: str
    intact: bool | None
    """Whether the payload matches its digest; None where the envelope has none."""
    signatures: tuple[tuple[str, bytes], ...]
    """Key id, signature."""

    def candidates(self, keys: Mapping[str, Ed25519PublicKey]) -> list[str]:
        """Return the ids of the keys that signatures name; a signature that names none may be of
        any key.
        """
        named = {key_id for key_id, _ in self.signatures}
        return [key_id for key_id in keys if key_id in named or "" in named]

    def signed_by(self, keys: Mapping[str, Ed25519PublicKey]) -> str | None:
        """Return the id of the first key that one of the signatures is right under, None if
        there is none.
        """
        message = pae(self.payload_type, self.payload)
        for named, signature in self.signatures:
            for key_id, key in keys.items():
                if named in ("", key_id) and _right(key, signature, message):
                    return key_id
        return None


def pae(payload_type: str, payload: bytes) -> bytes:
    """Return the pre-authentication encoding: the bytes that are signed (protocol.md, "Signature
    Definition").
    """
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def seal(payload_type: str, payload: bytes, signer: Signer) -> bytes:
    """Return the envelope of a payload, signed, as indented JSON."""
    signature = signer.sign(pae(payload_type, payload))
    envelope = Envelope(
        payload=base64.b64encode(payload).decode(),
        payload_type=payload_type,
        payload_digest=hashlib.sha256(payload).hexdigest(),
        signatures=(
            EnvelopeSignature(keyid=signer.key_id, sig=base64.b64encode(signature).decode()),
        ),
    )
    return envelope.model_dump_json(indent=2).encode() + b"\n"


def unseal(content: bytes) -> Opened:
    """Decode an envelope; its signatures are not checked.

    Raises:
        NotAnEnvelope: it is none; the message says why.
    """
    try:
        envelope = Envelope.model_validate(json.loads(content))
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
        raise NotAnEnvelope(
            f"field {'.'.join(map(str, wrong['loc'])) or '(all)'}: {wrong['msg']}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise NotAnEnvelope("it is not JSON") from error
    payload = _decoded(envelope.payload, "payload")
    digest = envelope.payload_digest
    return Opened(
        payload=payload,
        payload_type=envelope.payload_type,
        intact=None if digest is None else digest == hashlib.sha256(payload).hexdigest(),
        signatures=tuple((s.keyid, _decoded(s.sig, "sig")) for s in envelope.signatures),
    )


def _decoded(text: str, field: str) -> bytes:
    """Decode base64, standard or URL-safe: the specification allows both. No two texts stand for
    the same bytes.
    """
    standard = text.replace("-", "+").replace("_", "/")
    try:
        content = base64.b64decode(standard, validate=True)
    except ValueError as error:
        raise NotAnEnvelope(f"field {field} is not base64") from error
    if base64.b64encode(content).decode() != standard:
        raise NotAnEnvelope(f"field {field} is base64 with stray bits at its end")
    return content


def _right(key: Ed25519PublicKey, signature: bytes, message: bytes) -> bool:
    try:
        key.verify(signature, message)
    except InvalidSignature:
        return False
    return True
