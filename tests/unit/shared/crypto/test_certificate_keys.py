"""The folder of keys: who may read them, rotation, and how public keys are handed out."""

import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from shared.crypto.certificate_keys import KeyFolder, NoSigningKey
from shared.errors import Conflict


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


def test_a_reference_depends_on_tenant_and_text_and_tells_neither(keys):
    references = {keys.subject_key(tenant).reference(text) for tenant in ("a", "b") for text in ("1", "2")}

    assert len(references) == 4
    assert keys.subject_key("a").reference("1") in references
