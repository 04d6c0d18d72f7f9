"""Public keys as they are handed out and read back."""

import base64
import hashlib
import json
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from shared.crypto.certificate_keys import KeyFolder
from shared.crypto.public_keys import NotKeys, jwk_set, key_id, public_pem, read_public_keys
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


# Small order. The points are computed here from the curve alone, as RFC 8032 defines it.

P, D = 2**255 - 19, -121665 * pow(121666, -1, 2**255 - 19) % (2**255 - 19)
ROOT_OF_MINUS_1 = pow(2, (P - 1) // 4, P)


def added(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    (x1, y1), (x2, y2) = one, other
    product = D * x1 * x2 * y1 * y2 % P
    x = (x1 * y2 + x2 * y1) * pow(1 + product, -1, P) % P
    return x, (y1 * y2 + x1 * x2) * pow(1 - product, -1, P) % P


def root(square: int) -> int | None:
    candidate = pow(square, (P + 3) // 8, P)
    for found in (candidate, candidate * ROOT_OF_MINUS_1 % P):
        if found * found % P == square % P:
            return found
    return None


def points_of_small_order() -> set[tuple[int, int]]:
    """Return the eight points whose order divides 8: what any point is, times the order of the base point."""
    prime = 2**252 + 27742317777372353535851937790883648493
    for y in range(2, 100):
        x = root((y * y - 1) * pow(D * y * y + 1, -1, P) % P)
        if x is None:
            continue
        point, power, left = (0, 1), (x, y), prime
        while left:
            point, power, left = (added(point, power) if left & 1 else point), added(power, power), left >> 1
        multiples, at = set(), (0, 1)
        for _ in range(8):
            multiples.add(at)
            at = added(at, point)
        if len(multiples) == 8:
            return multiples
    raise AssertionError("there is no point of order 8")


def encodings() -> list[bytes]:
    """Return every way to write them in 32 bytes: y or y + p, and either bit of x."""
    ys = {y + more for _, y in points_of_small_order() for more in (0, P) if y + more < 2**255}
    return [(y | sign << 255).to_bytes(32, "little") for y in sorted(ys) for sign in (0, 1)]


def test_keys_of_small_order_are_refused_however_they_are_written():
    found = encodings()
    assert len(found) == 14  # libsodium's list has seven, without the bit of x
    for raw in found:
        x = base64.urlsafe_b64encode(raw).decode().rstrip("=")
        entry = {"kty": "OKP", "crv": "Ed25519", "x": x}
        with pytest.raises(NotKeys, match="small order"):
            read_public_keys(json.dumps({"keys": [entry]}).encode())


def test_among_sound_keys_one_of_small_order_is_refused_too():
    sound = jwk_set({"a": Ed25519PrivateKey.generate().public_key()})["keys"]
    weak = {"kty": "OKP", "crv": "Ed25519", "x": base64.urlsafe_b64encode(b"\1" + bytes(31)).decode().rstrip("=")}
    assert read_public_keys(json.dumps({"keys": sound}).encode())
    with pytest.raises(NotKeys, match="small order"):
        read_public_keys(json.dumps({"keys": [*sound, weak]}).encode())
