"""The RSA key and the X.509 certificate that OpenDSR answers and call-backs are signed with.

A signature is RSASSA-PKCS1-v1_5 over SHA-256 (FIPS 186-4, section 5.5), in base64: what `openssl
dgst -sha256 -sign` makes and `-verify` checks. The specification names the standard and the
digest, and leaves the padding open."""

import base64
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from shared.crypto.certificate_keys import NoSigningKey, new_secret, read_secret
from shared.errors import Unavailable
from shared.settings import Settings

LEAST_BITS = 2048
MADE_BITS = 3072
MADE_FOR_DAYS = 3650
SETTINGS = "EFFACE_OPENDSR_KEY_FILE and EFFACE_OPENDSR_CERTIFICATE_FILE"


@dataclass(frozen=True, slots=True)
class ProcessorKey:
    """Who answers, as OpenDSR knows it: a domain, the certificate issued for it, and its private
    key.
    """

    domain: str
    certificate: bytes
    """PEM, as the operator gave it: the leaf first, then its chain."""
    key: RSAPrivateKey
    expires_at: datetime

    @classmethod
    def of(cls, settings: Settings) -> "ProcessorKey":
        """Return the key of a deployment, read anew when a file has changed.

        Raises:
            Unavailable: there is none, the two files do not belong together, or the certificate is
                not valid now.
        """
        key_file, certificate_file = settings.opendsr_key_file, settings.opendsr_certificate_file
        if key_file is None or certificate_file is None:
            raise Unavailable(f"OpenDSR is not set up here; set {SETTINGS}.")
        try:
            found = _read(
                key_file, _changed(key_file), certificate_file, _changed(certificate_file)
            )
        except OSError as error:
            raise Unavailable(
                f"A file of OpenDSR cannot be read ({error.strerror}); see {SETTINGS}."
            ) from error
        except (
            NoSigningKey,
            ValueError,
            TypeError,
            UnsupportedAlgorithm,
            x509.ExtensionNotFound,
        ) as error:
            raise Unavailable(
                f"The key of OpenDSR cannot be used: {error} See {SETTINGS}."
            ) from error
        if found.expires_at <= datetime.now(UTC):
            raise Unavailable("The certificate of OpenDSR has expired; put a new one in its place.")
        return found

    def sign(self, body: bytes) -> str:
        """Return the signature of a body, in base64."""
        return base64.b64encode(self.key.sign(body, PKCS1v15(), SHA256())).decode()

    def headers(self, body: bytes) -> dict[str, str]:
        """Return what an answer or a call-back with this body bears, under the present and the
        former names.
        """
        signature = self.sign(body)
        return {
            f"X-{name}-{field}": value
            for name in ("OpenDSR", "OpenGDPR")
            for field, value in (("Processor-Domain", self.domain), ("Signature", signature))
        }


def make_self_signed(folder: Path, domain: str) -> tuple[Path, Path]:
    """Return the key and the certificate in `folder`; make both where there is no key.

    Nobody but this machine trusts such a certificate: the specification wants one from an
    authority."""
    key_file, certificate_file = folder / "key.pem", folder / "certificate.pem"
    if not key_file.exists():
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        key = generate_private_key(public_exponent=65537, key_size=MADE_BITS)
        certificate_file.write_bytes(_self_signed(key, domain).public_bytes(Encoding.PEM))
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        new_secret(key_file, pem)
    return key_file, certificate_file


def _self_signed(key: RSAPrivateKey, domain: str) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, domain)])
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))  # clocks of receivers differ
        .not_valid_after(now + timedelta(days=MADE_FOR_DAYS))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(domain)]), critical=False)
        .sign(key, SHA256())
    )


def _changed(path: Path) -> int:
    return path.stat().st_mtime_ns


@lru_cache(maxsize=4)
def _read(
    key_file: Path, _key_changed: int, certificate_file: Path, _certificate_changed: int
) -> ProcessorKey:
    """Read both files and check that they belong together. The times are part of the cache's key
    alone.
    """
    key = load_pem_private_key(read_secret(key_file), password=None)
    if not isinstance(key, RSAPrivateKey) or key.key_size < LEAST_BITS:
        raise ValueError(f"{key_file} is no RSA key of {LEAST_BITS} bits or more.")
    pem = certificate_file.read_bytes()
    certificate = x509.load_pem_x509_certificates(pem)[0]
    if certificate.public_key() != key.public_key():
        raise ValueError(f"{certificate_file} was not issued for {key_file}.")
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    domains = [name for name in names.get_values_for_type(x509.DNSName) if not name.startswith("*")]
    if not domains:
        raise ValueError(
            f"{certificate_file} names no domain (subjectAltName), or a wildcard alone."
        )
    return ProcessorKey(domains[0].lower(), pem, key, certificate.not_valid_after_utc)
