"""Public keys as they are handed out and read back."""

import base64
import hashlib
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from shared.public_keys import NotKeys, jwk_set, key_id, public_pem, read_public_keys
from shared.signing import KeyFolder
from tests.support.certificates import key_folder


@pytest.fixture
def keys(tmp_path: Path) -> KeyFolder:
    return key_folder(tmp_path / "signing")


def test_an_id_is_the_digest_of_the_public_key_as_openssl_gives_it(keys):
    command = ["openssl", "pkey", "-in", str(keys.folder / "signing-key.pem"), "-pubout", "-outform", "DER"]
    der = subprocess.run(command, capture_output=True, check=True).stdout

    assert keys.signer().key_id == hashlib.sha256(der).hexdigest()[:32]


def test_a_key_set_is_one_of_octet_key_pairs(keys):
    (entry,) = jwk_set(keys.public_keys())["keys"]

    raw = base64.urlsafe_b64decode(entry.pop("x") + "=")
    assert raw == keys.signer().public_key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    assert entry == {"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": keys.signer().key_id}


def test_the_example_of_rfc_8037_is_read():
    """Appendix A.2; its thumbprint is another kind of id, and a kid that is claimed is not believed."""
    text = '{"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "liar", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}'

    ((found, key),) = read_public_keys(text.encode()).items()

    assert key.public_bytes_raw().hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert found == key_id(key) != "liar"


def test_pem_is_read():
    key = Ed25519PrivateKey.generate().public_key()

    assert list(read_public_keys(public_pem(key))) == [key_id(key)]


RSA = generate_private_key(65537, 2048).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b"[" * 100_000,
        b'{"keys": []}',
        b'{"keys": [{"kty": "RSA", "n": "AA"}]}',
        b'{"keys": [{"crv": "Ed25519", "x": "AAAA"}]}',
        b'{"keys": [{"crv": "Ed25519"}]}',
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        RSA,
    ],
)
def test_what_holds_no_key_is_refused(content):
    with pytest.raises(NotKeys):
        read_public_keys(content)
