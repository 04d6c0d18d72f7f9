"""Envelopes, checked against the specification and against another implementation."""

import base64
import json

import pytest
from securesystemslib.dsse import Envelope as OtherEnvelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, SSlibKey

from shared.crypto.certificate_keys import Signer
from shared.crypto.dsse import NotAnEnvelope, pae, seal, unseal
from shared.crypto.public_keys import read_public_keys
from tests.support.certificates import key_folder

KIND = "application/vnd.in-toto+json"


@pytest.fixture
def signer(tmp_path) -> Signer:
    return key_folder(tmp_path / "signing").signer()


def others_key(signer: Signer) -> SSlibKey:
    key = SSlibKey.from_crypto(signer.public_key)
    key.keyid = signer.key_id
    return key


def test_what_is_signed_is_what_the_specification_says():
    """Its example: protocol.md, "Test Vectors"."""
    assert pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )
    assert pae("é", b"") == b"DSSEv1 2 \xc3\xa9 0 "  # lengths are of bytes


def test_another_implementation_accepts_our_envelope(signer):
    envelope = OtherEnvelope.from_dict(json.loads(seal(KIND, b"{}", signer)))

    assert list(envelope.verify([others_key(signer)], 1)) == [signer.key_id]
    assert (envelope.payload, envelope.payload_type) == (b"{}", KIND)


def test_another_implementation_refuses_it_when_it_was_changed(signer):
    body = json.loads(seal(KIND, b"{}", signer))
    body["payload"] = base64.b64encode(b"[]").decode()

    with pytest.raises(VerificationError):
        OtherEnvelope.from_dict(body).verify([others_key(signer)], 1)


def test_we_accept_an_envelope_of_another_implementation():
    other = CryptoSigner.generate_ed25519()
    envelope = OtherEnvelope(b"payload", KIND, {})
    envelope.sign(other)
    x = base64.urlsafe_b64encode(bytes.fromhex(other.public_key.keyval["public"])).decode().rstrip("=")
    keys = read_public_keys(json.dumps({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": x}]}).encode())
    body = envelope.to_dict()
    body["signatures"][0].pop("keyid")  # theirs is computed otherwise; a hint may be left out

    opened = unseal(json.dumps(body).encode())

    assert opened.intact is None
    assert opened.signed_by(keys) == next(iter(keys))


def test_one_right_signature_of_many_is_enough(signer, tmp_path):
    stranger = key_folder(tmp_path / "stranger").signer()
    body, other = (json.loads(seal(KIND, b"{}", key)) for key in (signer, stranger))
    body["signatures"].insert(0, other["signatures"][0])
    opened = unseal(json.dumps(body).encode())

    assert opened.signed_by({signer.key_id: signer.public_key}) == signer.key_id
    assert opened.signed_by({}) is None


def test_url_safe_base64_is_read(signer):
    body = json.loads(seal(KIND, b"\xfb\xff\xfe???", signer))
    assert {"+", "/"} & set(body["payload"])
    body["payload"] = body["payload"].replace("+", "-").replace("/", "_")

    assert unseal(json.dumps(body).encode()).signed_by({signer.key_id: signer.public_key}) == signer.key_id


SOUND = {"payload": "e30=", "payloadType": KIND, "signatures": [{"keyid": "k", "sig": "AAAA"}]}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "all"),
        (json.dumps(SOUND | {"payload": None}).encode(), "payload"),
        (json.dumps(SOUND | {"payload": "e30"}).encode(), "payload is not base64"),
        (json.dumps(SOUND | {"payload": "e31="}).encode(), "stray bits"),
        (json.dumps(SOUND | {"signatures": []}).encode(), "signatures"),
        (json.dumps(SOUND | {"signatures": [{"sig": "?"}]}).encode(), "sig is not base64"),
        (json.dumps({name: SOUND[name] for name in ("payload", "signatures")}).encode(), "payloadType"),
    ],
)
def test_what_is_no_envelope_is_told_why(content, words):
    with pytest.raises(NotAnEnvelope, match=words):
        unseal(content)
