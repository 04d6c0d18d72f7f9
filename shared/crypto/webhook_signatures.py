"""Signatures of Standard Webhooks 1.0.0: `v1` (HMAC-SHA256) and `v1a` (Ed25519).

Signed is `{id}.{timestamp}.{body}`; an id therefore holds no full stop.
"""

import base64
import hashlib
import hmac
from collections.abc import Iterable, Mapping

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SECRET_BYTES = 32
"""The specification wants 24 to 64."""


def secret_text(secret: bytes) -> str:
    """Return an HMAC key as receivers keep it: `whsec_...`."""
    return f"whsec_{_base64(secret)}"


def public_key_text(private_key: bytes) -> str:
    """Return the public half of an Ed25519 key (32 bytes) as receivers keep it: `whpk_...`."""
    public_key = Ed25519PrivateKey.from_private_bytes(private_key).public_key()
    return f"whpk_{_base64(public_key.public_bytes_raw())}"


def hmac_signature(secret: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """Return `v1,...`."""
    return (
        f"v1,{_base64(hmac.digest(secret, _signed(message_id, timestamp, body), hashlib.sha256))}"
    )


def ed25519_signature(private_key: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """Return `v1a,...`."""
    key = Ed25519PrivateKey.from_private_bytes(private_key)
    return f"v1a,{_base64(key.sign(_signed(message_id, timestamp, body)))}"


def headers(
    message_id: str, timestamp: int, body: bytes, keys: Iterable[tuple[bytes, bytes]]
) -> Mapping[str, str]:
    """Return the three headers of a call.

    Args:
        message_id: the same at every try.
        timestamp: of this try, in seconds since 1970.
        body: as it is sent.
        keys: (HMAC key, Ed25519 private key) of each generation that is valid, the current one
            first.
    """
    signatures = [
        signature
        for secret, private_key in keys
        for signature in (
            hmac_signature(secret, message_id, timestamp, body),
            ed25519_signature(private_key, message_id, timestamp, body),
        )
    ]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(signatures),
    }


def _signed(message_id: str, timestamp: int, body: bytes) -> bytes:
    return f"{message_id}.{timestamp}.".encode() + body


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
