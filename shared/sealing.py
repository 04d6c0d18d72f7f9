"""Archives sealed at rest: each under a data key of its own, which is sealed under the operator's master key.

Whoever destroys a data key has destroyed the archive, in every copy and version of it (NIST SP 800-88 Rev. 1,
section 2.6, "cryptographic erase"). The archive is AES-256-GCM in segments of 1 MiB, Tink's streaming AEAD (Hoang,
Reyhanitabar, Rogaway and Vizar 2015): segments can be neither exchanged nor left out. The id of the data set is
authenticated with both, so that one data set's key or bytes cannot stand for another's.
"""

import base64
import binascii
import io
import os
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Self

import tink
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from tink import proto_keyset_format, secret_key_access, streaming_aead

from shared.errors import EffaceError, Unavailable
from shared.settings import Settings

MASTER_KEY_BYTES = 32
NONCE_BYTES = 12
CHUNK_BYTES = 1024 * 1024


class SealBroken(EffaceError):
    """What lies in the storage is not what was sealed."""

    code = "seal_broken"
    title = "Sealed data was changed"


class Sealer:
    """Makes data keys, seals and opens with them.

    Raises:
        Unavailable: there is no master key, or not the one that is needed. The operator can mend that.
    """

    def __init__(self, *master_keys: bytes) -> None:
        """Take the master keys, each 32 bytes: the first one seals, all of them open."""
        self._masters = [AESGCM(key) for key in master_keys]

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the sealer of a deployment: the keys are in `EFFACE_MASTER_KEY`."""
        if settings.master_key is None:
            raise Unavailable("EFFACE_MASTER_KEY is not set; 'openssl rand -base64 32' makes one.")
        return cls(*map(_decoded, settings.master_key.get_secret_value().split(",")))

    def new_key(self, name: str) -> bytes:
        """Return a new data key for the data set `name`, sealed: safe to store."""
        return self._sealed_key(_serialized_keyset(), name)

    def rewrapped(self, data_key: bytes, name: str) -> bytes:
        """Return a data key sealed under the first master key, whichever it was sealed under."""
        return self._sealed_key(self._opened_key(data_key, name), name)

    def seal(self, chunks: Iterable[bytes], data_key: bytes, name: str) -> Iterator[bytes]:
        """Yield `chunks` sealed, as they come."""
        sink = _Sink()
        stream = self._primitive(data_key, name).new_encrypting_stream(sink, name.encode())
        for chunk in chunks:
            stream.write(chunk)
            yield sink.drained()
        stream.close()
        yield sink.drained()

    def unseal(self, chunks: Iterable[bytes], data_key: bytes, name: str) -> Iterator[bytes]:
        """Yield what was sealed. Every chunk is authentic when it is yielded.

        Raises:
            SealBroken: the bytes are not those that were sealed, to the last one.
        """
        source = _Source(chunks)
        buffered = io.BufferedReader(source, CHUNK_BYTES)
        stream = self._primitive(data_key, name).new_decrypting_stream(buffered, name.encode())
        try:
            while chunk := stream.read(CHUNK_BYTES):
                yield chunk
        except tink.TinkError as error:
            if source.error is not None:  # the storage failed, not the seal
                raise source.error from None
            raise SealBroken(f"{name} was changed or cut off in the storage; upload it again.") from error

    def _primitive(self, data_key: bytes, name: str) -> streaming_aead.StreamingAead:
        _register()
        handle = proto_keyset_format.parse(self._opened_key(data_key, name), secret_key_access.TOKEN)
        return handle.primitive(streaming_aead.StreamingAead)

    def _sealed_key(self, keyset: bytes, name: str) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._masters[0].encrypt(nonce, keyset, name.encode())

    def _opened_key(self, data_key: bytes, name: str) -> bytes:
        for master in self._masters:
            try:
                return master.decrypt(data_key[:NONCE_BYTES], data_key[NONCE_BYTES:], name.encode())
            except InvalidTag:
                continue
        raise Unavailable(f"None of the keys in EFFACE_MASTER_KEY opens the key of {name}; add the one that sealed it.")


def _decoded(text: str) -> bytes:
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except binascii.Error:
        key = b""
    if len(key) != MASTER_KEY_BYTES:
        raise Unavailable("EFFACE_MASTER_KEY must be 32 bytes in base64; 'openssl rand -base64 32' makes them.")
    return key


@cache
def _register() -> None:
    streaming_aead.register()


def _serialized_keyset() -> bytes:
    _register()
    handle = tink.new_keyset_handle(streaming_aead.streaming_aead_key_templates.AES256_GCM_HKDF_1MB)
    return bytes(proto_keyset_format.serialize(handle, secret_key_access.TOKEN))


class _Sink(io.RawIOBase):
    """Takes what Tink writes until somebody wants it; closing it, as Tink does, loses nothing."""

    def __init__(self) -> None:
        self._held = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]  # bytes is the buffer that Tink writes
        self._held += data
        return len(data)

    def drained(self) -> bytes:
        held = bytes(self._held)
        self._held.clear()
        return held

    def close(self) -> None:
        """Stay open: the last bytes are still to be drained."""


class _Source(io.RawIOBase):
    """Chunks as a file. Tink swallows what goes wrong in it, so it is kept in `error`."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._rest = b""
        self.error: Exception | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # the buffers that io gives
        while not self._rest:
            try:
                following = next(self._chunks, None)
            except Exception as error:
                self.error = error
                raise
            if following is None:
                return 0
            self._rest = following
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size
