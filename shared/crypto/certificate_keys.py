"""The Ed25519 keys that sign certificates: a folder with one private key, every public key, and the
key of subjects.

    <folder>/signing-key.pem         the key in use, PKCS#8, mode 0600
    <folder>/public/<key id>.pem     it and all that were in use before it
    <folder>/subject-key             32 random bytes in hexadecimal, mode 0600

Every change is one file put in its place whole, public halves first.
"""

import fcntl
import hashlib
import hmac
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from shared.crypto.public_keys import key_id, public_pem, read_public_keys
from shared.errors import Conflict, EffaceError

PRIVATE_NAME = "signing-key.pem"
PUBLIC_FOLDER = "public"
SUBJECT_NAME = "subject-key"
PRIVATE_MODE = 0o600


class NoSigningKey(EffaceError):
    """There is no key to sign with, or it must not be used as it lies there."""

    code = "no_signing_key"
    title = "There is no usable signing key"


@dataclass(frozen=True, slots=True)
class Signer:
    """A private key with its id."""

    key_id: str
    key: Ed25519PrivateKey

    @property
    def public_key(self) -> Ed25519PublicKey:
        """The public half."""
        return self.key.public_key()

    def sign(self, message: bytes) -> bytes:
        """Return the signature, 64 bytes (RFC 8032)."""
        return self.key.sign(message)


@dataclass(frozen=True, slots=True)
class SubjectKey:
    """The key under which one tenant's references are hashed; who holds it can tell whom a
    certificate is about.
    """

    key: bytes

    def reference(self, text: str) -> str:
        """Return the HMAC-SHA256 of a text, in hexadecimal."""
        return hmac.new(self.key, text.encode(), hashlib.sha256).hexdigest()


class KeyFolder:
    """The keys in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def has_signer(self) -> bool:
        """True if there is a private key."""
        return (self.folder / PRIVATE_NAME).exists()

    def create(self) -> str:
        """Make the first keys and return the id of the signing key.

        Raises:
            Conflict: there is one already.
        """
        with self._locked():
            if self.has_signer:
                raise Conflict(
                    f"There is a signing key in {self.folder} already; 'efface keys signing "
                    "rotate' replaces it."
                )
            subject = self.folder / SUBJECT_NAME
            if not subject.exists():
                _write(subject, secrets.token_hex(32).encode() + b"\n", PRIVATE_MODE)
            return self._install()

    def rotate(self) -> tuple[str, str]:
        """Replace the private key, whose public half stays; return the ids of the old and the new
        key.

        Raises:
            NoSigningKey: there is none to replace.
        """
        with self._locked():
            old = self.signer().key_id
            return old, self._install()

    def signer(self) -> Signer:
        """Return the key in use, read anew, so that a rotation needs no restart.

        Raises:
            NoSigningKey: there is none, it is damaged, or others than its owner may read it.
        """
        key = _private(self.folder / PRIVATE_NAME)
        if not isinstance(key, Ed25519PrivateKey):
            raise NoSigningKey(
                f"{self.folder / PRIVATE_NAME} is not an Ed25519 key; only such a key signs "
                "certificates."
            )
        return Signer(key_id(key.public_key()), key)

    def public_keys(self) -> dict[str, Ed25519PublicKey]:
        """Return every public key, oldest first."""
        files = sorted(
            (self.folder / PUBLIC_FOLDER).glob("*.pem"),
            key=lambda file: (file.stat().st_mtime_ns, file.name),
        )
        return {
            key_id(key): key
            for file in files
            for key in read_public_keys(file.read_bytes()).values()
        }

    def forget(self, identifier: str) -> bool:
        """Take a public key out of the folder; False if it was not there."""
        file = self.folder / PUBLIC_FOLDER / f"{identifier}.pem"
        found = identifier in self.public_keys()
        file.unlink(missing_ok=True)
        return found

    def subject_key(self, tenant: str) -> SubjectKey:
        """Return the key of the tenant of this name, derived from the folder's: it may be handed
        out without the others.

        Raises:
            NoSigningKey: the folder has none, or others than its owner may read it.
        """
        text = _secret(self.folder / SUBJECT_NAME)
        return SubjectKey(
            hmac.digest(bytes.fromhex(text.decode().strip()), tenant.encode(), "sha256")
        )

    def _install(self) -> str:
        """Make a key, publish its public half, and only then put the private one in place."""
        key = Ed25519PrivateKey.generate()
        identifier = key_id(key.public_key())
        public = self.folder / PUBLIC_FOLDER
        public.mkdir(exist_ok=True)
        _write(public / f"{identifier}.pem", public_pem(key.public_key()), 0o644)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        _write(self.folder / PRIVATE_NAME, pem, PRIVATE_MODE)
        return identifier

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Let one process at a time change the folder."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self.folder / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _private(path: Path) -> object:
    try:
        return load_pem_private_key(_secret(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise NoSigningKey(
            f"{path} is not a private key in PEM; restore it, or make a new one."
        ) from error


def new_secret(path: Path, content: bytes) -> None:
    """Write a new file that its owner alone may read.

    Raises:
        FileExistsError: there is one already.
    """
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_MODE), "wb") as file:
        file.write(content)


def read_secret(path: Path) -> bytes:
    """Read a file that its owner alone may read.

    Raises:
        NoSigningKey: others may read it, too.
        OSError: it cannot be read.
    """
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise NoSigningKey(f"{path} may be read by others (mode {mode:04o}); run: chmod 600 {path}")
    return path.read_bytes()


def _secret(path: Path) -> bytes:
    try:
        return read_secret(path)
    except OSError as error:
        raise NoSigningKey(
            f"{path} cannot be read ({error.strerror}); 'efface keys signing create' makes the "
            "keys."
        ) from error


def _write(path: Path, content: bytes, mode: int) -> None:
    """Put a whole file in place, or nothing: readers never see half a key."""
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
