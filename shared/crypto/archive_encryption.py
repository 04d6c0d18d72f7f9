"""Archives sealed at rest: each under a data key of its own, which is sealed under the operator's
master key.

Whoever destroys a data key has destroyed the archive, in every copy and version of it (NIST SP
800-88 Rev. 1, section 2.6, "cryptographic erase"). The archive is AES-256-GCM in segments of 1
MiB, Tink's streaming AEAD (Hoang, Reyhanitabar, Rogaway and Vizar 2015): segments can be neither
exchanged nor left out. The id of the data set is authenticated with both, so that one data set's
key or bytes cannot stand for another's."""

import io
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Self

import tink
from tink import proto_keyset_format, secret_key_access, streaming_aead

from shared.crypto.secret_box import SecretBox, master_keys
from shared.errors import EffaceError
from shared.settings import Settings

CHUNK_BYTES = 1024 * 1024


class SealBroken(EffaceError):
    """What lies in the storage is not what was sealed."""

    code = "seal_broken"
    title = "Sealed data was changed"


class Sealer:
    """Makes data keys, seals and opens with them.

    Raises:
        Unavailable: there is no master key, or not the one that is needed. The operator can mend
            that.
    """

    def __init__(self, *master_keys: bytes) -> None:
        """Take the master keys, each 32 bytes: the first one seals, all of them open."""
        self._box = SecretBox(*master_keys)

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the sealer of a deployment: the keys are in `EFFACE_MASTER_KEY`."""
        return cls(*master_keys(settings))

    def new_key(self, name: str) -> bytes:
        """Return a new data key for the data set `name`, sealed: safe to store."""
        return self._box.seal(_serialized_keyset(), name)

    def rewrapped(self, data_key: bytes, name: str) -> bytes:
        """Return a data key sealed under the first master key, whichever it was sealed under."""
        return self._box.resealed(data_key, name)

    def opened(self, data_key: bytes, name: str) -> bytes:
        """Return a data key as `sealed` and `unsealed` take it: whoever has it needs no master
        key, and opens this alone.
        """
        return self._box.open(data_key, name)

    def seal(self, chunks: Iterable[bytes], data_key: bytes, name: str) -> Iterator[bytes]:
        """Yield `chunks` sealed, as they come."""
        yield from sealed(chunks, self.opened(data_key, name), name)

    def unseal(self, chunks: Iterable[bytes], data_key: bytes, name: str) -> Iterator[bytes]:
        """Yield what was sealed. Every chunk is authentic when it is yielded.

        Raises:
            SealBroken: the bytes are not those that were sealed, to the last one.
        """
        yield from unsealed(chunks, self.opened(data_key, name), name)


def sealed(chunks: Iterable[bytes], opened_key: bytes, name: str) -> Iterator[bytes]:
    """Yield `chunks` encrypted with an opened data key, as they come; they open under the same
    `name` alone.
    """
    sink = _Sink()
    stream = _primitive(opened_key).new_encrypting_stream(sink, name.encode())
    for chunk in chunks:
        stream.write(chunk)
        yield sink.drained()
    stream.close()
    yield sink.drained()


def unsealed(chunks: Iterable[bytes], opened_key: bytes, name: str) -> Iterator[bytes]:
    """Yield what was encrypted with an opened data key. Every chunk is authentic when it is
    yielded.

    Raises:
        SealBroken: the bytes are not those that were sealed under this name, to the last one.
    """
    source = _Source(chunks)
    buffered = io.BufferedReader(source, CHUNK_BYTES)
    stream = _primitive(opened_key).new_decrypting_stream(buffered, name.encode())
    try:
        while chunk := stream.read(CHUNK_BYTES):
            yield chunk
    except tink.TinkError as error:
        if source.error is not None:  # the storage failed, not the seal
            raise source.error from None
        raise SealBroken(
            f"{name} was changed or cut off in the storage; upload it again."
        ) from error


def _primitive(opened_key: bytes) -> streaming_aead.StreamingAead:
    _register()
    return proto_keyset_format.parse(opened_key, secret_key_access.TOKEN).primitive(
        streaming_aead.StreamingAead
    )


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
