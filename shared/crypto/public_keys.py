"""Public Ed25519 keys as they are handed out and read back: PEM and JSON Web Key Sets.

A key id is the first 32 hexadecimal digits of the SHA-256 of the public key in DER
(SubjectPublicKeyInfo)."""

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

KEYS_PATH = "/.well-known/efface-keys.json"
"""Where every API publishes the public keys, to anyone."""
KEY_ID_DIGITS = 32

FIELD = 2**255 - 19
ORDER_8_Y = int.from_bytes(
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
    byteorder="little",
)
SMALL_ORDER_Y = frozenset({0, 1, FIELD - 1, ORDER_8_Y, FIELD - ORDER_8_Y})
"""The y of the eight points of Curve25519 in Edwards form whose order divides 8. A signature of
one message under such a key holds for others, so a set that holds one verifies what nobody
signed."""

PublicKeys = Mapping[str, Ed25519PublicKey]
"""By key id."""


class NotKeys(ValueError):
    """These bytes hold no Ed25519 public key."""


def key_id(key: Ed25519PublicKey) -> str:
    """Return the id of a key."""
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()[:KEY_ID_DIGITS]


def public_pem(key: Ed25519PublicKey) -> bytes:
    """Return a public key in PEM."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def jwk_set(keys: PublicKeys) -> dict[str, Any]:
    """Return keys as a JSON Web Key Set (RFC 7517) of octet key pairs (RFC 8037, section 2)."""

    def number(key: Ed25519PublicKey) -> str:
        return base64.urlsafe_b64encode(key.public_bytes_raw()).decode().rstrip("=")

    common = {"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig"}
    return {
        "keys": [common | {"kid": identifier, "x": number(key)} for identifier, key in keys.items()]
    }


def read_public_keys(content: bytes) -> dict[str, Ed25519PublicKey]:
    """Return the keys in a PEM file or a JSON Web Key Set. Ids are computed, never believed.

    Raises:
        NotKeys: there is no Ed25519 public key in it, or one that cannot tell what it signed.
    """
    keys = (
        _from_pem(content) if content.lstrip().startswith(b"-----BEGIN") else _from_jwk_set(content)
    )
    if not keys:
        raise NotKeys("it holds no Ed25519 public key")
    if any(map(has_small_order, keys)):
        raise NotKeys("it holds a key of small order, under which anything is signed")
    return {key_id(key): key for key in keys}


def has_small_order(key: Ed25519PublicKey) -> bool:
    """True for the few public keys that belong to no private one: whichever way their y is
    written, and either x.
    """
    y = int.from_bytes(key.public_bytes_raw(), byteorder="little") & (2**255 - 1)
    return y % FIELD in SMALL_ORDER_Y


def _from_pem(content: bytes) -> list[Ed25519PublicKey]:
    try:
        key = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise NotKeys("it is not a public key in PEM") from error
    return [key] if isinstance(key, Ed25519PublicKey) else []


def _from_jwk_set(content: bytes) -> list[Ed25519PublicKey]:
    """Read a set; keys of other kinds in it are left out."""
    try:
        entries = [entry for entry in json.loads(content)["keys"] if entry.get("crv") == "Ed25519"]
        return [Ed25519PublicKey.from_public_bytes(_unpadded(entry["x"])) for entry in entries]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise NotKeys("it is neither PEM nor a JSON Web Key Set") from error


def _unpadded(text: str) -> bytes:
    """Decode URL-safe base64 without padding, as JSON Web Keys have it."""
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
