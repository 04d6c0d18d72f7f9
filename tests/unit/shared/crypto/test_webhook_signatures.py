"""Signatures, against the specification's vector and against another implementation."""

import base64
import time

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from shared.crypto import webhook_signatures

SECRET, PRIVATE = bytes(range(32)), bytes(range(32, 64))
BODY = '{"type":"job.succeeded","data":{"name":"Zoë"}}'.encode()


def test_the_vector_of_the_specification():
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    signature = webhook_signatures.hmac_signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)

    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert webhook_signatures.secret_text(secret) == "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def test_another_implementation_accepts_what_we_sign_and_nothing_else():
    headers = dict(webhook_signatures.headers("msg_1", int(time.time()), BODY, [(SECRET, PRIVATE)]))
    verifier = Webhook(webhook_signatures.secret_text(SECRET))

    assert verifier.verify(BODY, headers)["data"] == {"name": "Zoë"}
    for wrong in ({"webhook-id": "msg_2"}, {"webhook-timestamp": str(int(time.time()) - 1)}):
        with pytest.raises(WebhookVerificationError):
            verifier.verify(BODY, headers | wrong)
    with pytest.raises(WebhookVerificationError):
        verifier.verify(BODY + b" ", headers)


def test_both_generations_sign_while_a_secret_is_rotated():
    old, new = (SECRET, PRIVATE), (PRIVATE, SECRET)
    headers = dict(webhook_signatures.headers("msg_1", int(time.time()), BODY, [new, old]))

    versions = [signature.partition(",")[0] for signature in headers["webhook-signature"].split(" ")]

    assert versions == ["v1", "v1a", "v1", "v1a"]
    for secret, _ in (old, new):
        Webhook(webhook_signatures.secret_text(secret)).verify(BODY, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(webhook_signatures.secret_text(bytes(32))).verify(BODY, headers)


def test_the_public_key_checks_the_ed25519_signature():
    text = webhook_signatures.public_key_text(PRIVATE)
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(text.removeprefix("whpk_")))
    version, _, signature = webhook_signatures.ed25519_signature(PRIVATE, "msg_1", 7, BODY).partition(",")

    assert version == "v1a"
    key.verify(base64.b64decode(signature), b"msg_1.7." + BODY)
    with pytest.raises(InvalidSignature):
        key.verify(base64.b64decode(signature), b"msg_1.8." + BODY)
