"""The key that OpenDSR answers are signed with, and what openssl says of its signatures."""

import base64
import shutil
import subprocess

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from shared.crypto.opendsr_key import ProcessorKey, make_self_signed
from shared.errors import Unavailable
from shared.settings import Settings
from tests.support.parts import PROCESSOR_DOMAIN, processor_files


@pytest.fixture
def files(tmp_path):
    """A key and its certificate, to be spoilt."""
    made = [tmp_path / file.name for file in processor_files()]
    for file, copy in zip(processor_files(), made, strict=True):
        shutil.copy(file, copy)
    return made


def opened(key_file, certificate_file) -> ProcessorKey:
    settings = Settings(_env_file=None, opendsr_key_file=key_file, opendsr_certificate_file=certificate_file)
    return ProcessorKey.of(settings)


def pem(key) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def test_openssl_verifies_a_signature_by_the_certificate(files, tmp_path):
    body = '{"name": "Zoë"}'.encode()
    (tmp_path / "body").write_bytes(body)
    (tmp_path / "signature").write_bytes(base64.b64decode(opened(*files).sign(body)))
    public = subprocess.run(
        ["openssl", "x509", "-in", str(files[1]), "-pubkey", "-noout"], capture_output=True, check=True
    ).stdout
    (tmp_path / "public.pem").write_bytes(public)

    def verdict() -> int:
        command = ["openssl", "dgst", "-sha256", "-verify", "public.pem", "-signature", "signature", "body"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode

    assert verdict() == 0
    (tmp_path / "body").write_bytes(body + b" ")
    assert verdict() != 0


def test_the_domain_is_the_certificates(files):
    assert opened(*files).domain == PROCESSOR_DOMAIN


def test_answers_bear_the_present_and_the_former_names(files):
    headers = opened(*files).headers(b"{}")

    assert set(headers) == {
        "X-OpenDSR-Processor-Domain", "X-OpenDSR-Signature", "X-OpenGDPR-Processor-Domain", "X-OpenGDPR-Signature"
    }  # fmt: skip
    assert headers["X-OpenDSR-Signature"] == headers["X-OpenGDPR-Signature"]


def test_a_second_start_keeps_the_key(files):
    before = [file.read_bytes() for file in files]

    assert make_self_signed(files[0].parent, "other.example.com") == tuple(files)
    assert [file.read_bytes() for file in files] == before
    assert files[0].stat().st_mode & 0o777 == 0o600


def test_a_key_that_was_replaced_is_read_anew(files, tmp_path):
    assert opened(*files).domain == PROCESSOR_DOMAIN
    for old, new in zip(files, make_self_signed(tmp_path / "new", "new.example.com"), strict=True):
        new.replace(old)

    assert opened(*files).domain == "new.example.com"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda key, certificate: key.chmod(0o644), "chmod 600"),
        (lambda key, certificate: key.unlink(), "cannot be read"),
        (lambda key, certificate: key.write_bytes(b"no key"), "cannot be used"),
        (lambda key, certificate: key.write_bytes(pem(ec.generate_private_key(ec.SECP256R1()))), "no RSA key"),
        (lambda key, certificate: key.write_bytes(pem(rsa.generate_private_key(65537, 1024))), "2048 bits"),
        (lambda key, certificate: key.write_bytes(pem(rsa.generate_private_key(65537, 2048))), "was not issued for"),
        (lambda key, certificate: certificate.write_bytes(b"no certificate"), "cannot be used"),
    ],
)
def test_what_cannot_sign_says_why(files, spoil, said):
    spoil(*files)

    with pytest.raises(Unavailable) as refused:
        opened(*files)
    assert said in refused.value.detail
    assert "EFFACE_OPENDSR_KEY_FILE" in refused.value.detail


def test_a_wildcard_names_no_processor(tmp_path):
    with pytest.raises(Unavailable, match="wildcard"):
        opened(*make_self_signed(tmp_path, "*.example.com"))


def test_an_expired_certificate_signs_nothing(files, monkeypatch, tmp_path):
    monkeypatch.setattr("shared.crypto.opendsr_key.MADE_FOR_DAYS", 0)

    with pytest.raises(Unavailable, match="expired"):
        opened(*make_self_signed(tmp_path / "old", "old.example.com"))


def test_without_files_the_answer_names_the_settings():
    with pytest.raises(Unavailable, match="EFFACE_OPENDSR_CERTIFICATE_FILE"):
        opened(None, None)
