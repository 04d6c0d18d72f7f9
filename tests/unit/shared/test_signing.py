"""The folder of keys: who may read them, rotation, and how public keys are handed out."""

import base64
import hashlib
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from shared.errors import Conflict
from shared.signing import KeyFolder, NoSigningKey, NotKeys, jwk_set, key_id, public_pem, read_public_keys


@pytest.fixture
def keys(tmp_path: Path) -> KeyFolder:
    folder = KeyFolder(tmp_path / "deep" / "signing")
    folder.create()
    return folder


def private_file(keys: KeyFolder) -> Path:
    return keys.folder / "signing-key.pem"


def test_secrets_are_the_owners_alone(keys):
    for name in ("signing-key.pem", "subject-key"):
        assert stat.S_IMODE((keys.folder / name).stat().st_mode) == 0o600
    assert stat.S_IMODE(keys.folder.stat().st_mode) == 0o700


def test_a_signing_key_is_made_once(keys):
    before = private_file(keys).read_bytes()

    with pytest.raises(Conflict, match="rotate"):
        keys.create()

    assert private_file(keys).read_bytes() == before


@pytest.mark.parametrize("name", ["signing-key.pem", "subject-key"])
def test_what_others_may_read_is_not_used(keys, name):
    (keys.folder / name).chmod(0o640)

    with pytest.raises(NoSigningKey, match="chmod 600"):
        keys.signer() if name == "signing-key.pem" else keys.subject_key("tests")


@pytest.mark.parametrize("content", [b"", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_a_damaged_key_is_named(keys, content):
    private_file(keys).write_bytes(content)

    with pytest.raises(NoSigningKey, match=r"signing-key\.pem is not a private key"):
        keys.signer()


def test_a_key_of_another_kind_does_not_sign(keys):
    other = generate_private_key(65537, 2048)
    private_file(keys).write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    with pytest.raises(NoSigningKey, match="not an Ed25519 key"):
        keys.signer()


def test_without_a_key_the_error_says_how_to_make_one(tmp_path):
    with pytest.raises(NoSigningKey, match="efface keys signing create"):
        KeyFolder(tmp_path).signer()


def test_rotation_keeps_the_old_public_key_and_the_key_of_subjects(keys):
    first, subject = keys.signer().key_id, keys.subject_key("tests")

    assert keys.rotate() == (first, keys.signer().key_id)

    assert list(keys.public_keys()) == [first, keys.signer().key_id]
    assert keys.subject_key("tests") == subject


def test_an_id_is_the_digest_of_the_public_key_as_openssl_gives_it(keys):
    command = ["openssl", "pkey", "-in", str(private_file(keys)), "-pubout", "-outform", "DER"]
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


def test_a_reference_depends_on_tenant_and_text_and_tells_neither(keys):
    references = {keys.subject_key(tenant).reference(text) for tenant in ("a", "b") for text in ("1", "2")}

    assert len(references) == 4
    assert keys.subject_key("a").reference("1") in references
