"""Small secrets at rest: AES-256-GCM under the operator's master key, bound to the name of what
they belong to.
"""

import base64
import binascii
import os
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from shared.errors import Unavailable
from shared.settings import Settings

KEY_BYTES = 32
NONCE_BYTES = 12


class SecretBox:
    """Seals and opens. What was sealed for one name does not open for another."""

    def __init__(self, *keys: bytes) -> None:
        """Take the master keys, 32 bytes each: the first one seals, all of them open."""
        self._ciphers = [AESGCM(key) for key in keys]

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the box of a deployment.

        Raises:
            Unavailable: EFFACE_MASTER_KEY is not set, or is no key.
        """
        return cls(*master_keys(settings))

    def seal(self, secret: bytes, name: str) -> bytes:
        """Return a secret as it may be stored."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._ciphers[0].encrypt(nonce, secret, name.encode())

    def open(self, sealed: bytes, name: str) -> bytes:
        """Return what was sealed for `name`.

        Raises:
            Unavailable: none of the keys opens it.
        """
        for cipher in self._ciphers:
            try:
                return cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], name.encode())
            except InvalidTag:
                continue
        raise Unavailable(
            f"None of the keys in EFFACE_MASTER_KEY opens what is sealed for {name}; add the "
            "one "
            "that sealed it."
        )

    def resealed(self, sealed: bytes, name: str) -> bytes:
        """Return what was sealed for `name`, under whichever key, sealed under the first one."""
        return self.seal(self.open(sealed, name), name)


def master_keys(settings: Settings) -> list[bytes]:
    """Return the master keys of a deployment, the newest first.

    Raises:
        Unavailable: EFFACE_MASTER_KEY is not set, or is no key.
    """
    if settings.master_key is None:
        raise Unavailable("EFFACE_MASTER_KEY is not set; 'openssl rand -base64 32' makes one.")
    return [_decoded(key) for key in settings.master_key.get_secret_value().split(",")]


def _decoded(text: str) -> bytes:
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except binascii.Error:
        key = b""
    if len(key) != KEY_BYTES:
        raise Unavailable(
            "EFFACE_MASTER_KEY must be 32 bytes in base64; 'openssl rand -base64 32' makes them."
        )
    return key
