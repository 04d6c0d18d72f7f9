"""Calls to strangers: over real sockets, to names that the test resolves."""

import asyncio
import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network

import pytest
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from shared.ports.outbound_http import Answer, CallFailed, CallRefused, Outbound
from tests.support.receiver import receiving

LOOPBACK = [ip_network("127.0.0.0/8")]
NAME = "hooks.efface.test"


def resolving(*answers):
    """A resolver that gives one list of addresses after another, and counts how often it is asked."""

    async def resolve(host, port):
        resolve.asked.append((host, port))
        return answers[min(len(resolve.asked), len(answers)) - 1]

    resolve.asked = []
    return resolve


def post(url, *, allowed=LOOPBACK, timeout_seconds=20, body=b"{}", **options):
    outbound = Outbound(allowed=allowed, timeout_seconds=timeout_seconds, **options)
    return asyncio.run(outbound.post(url, body, {"webhook-id": "msg_1"}))


@pytest.fixture
def receiver():
    with receiving() as found:
        yield found


def named(url):
    return url.replace("127.0.0.1", NAME)


def test_the_body_arrives_under_the_hosts_name(receiver):
    resolve = resolving(["127.0.0.1"])
    receiver.answers = [(429, {"Retry-After": "7"})]

    assert post(named(receiver.url) + "?a=1", body=b"x y", resolve=resolve) == Answer(429, "7")

    (call,) = receiver.calls
    assert (call.path, call.body, call.headers["webhook-id"]) == ("/hook?a=1", b"x y", "msg_1")
    assert call.headers["host"] == named(receiver.url).split("/")[2]


def test_a_name_that_changes_its_meaning_is_called_where_it_was_checked(receiver):
    resolve = resolving(["127.0.0.1"], ["169.254.169.254"])

    assert post(named(receiver.url), resolve=resolve).status == 204
    assert len(resolve.asked) == 1


@pytest.mark.parametrize("addresses", [["10.0.0.1"], ["1.1.1.1", "127.0.0.1"], ["::ffff:127.0.0.1"], ["::1"]])
def test_one_address_that_is_not_public_is_enough_to_refuse(receiver, addresses):
    with pytest.raises(CallRefused, match="no public address"):
        post(named(receiver.url).replace("http:", "https:"), allowed=[], resolve=resolving(addresses))
    assert receiver.calls == []


def test_a_refusal_tells_nothing_of_the_network():
    """Whether an internal name is there, and where, is for the operator's log."""
    messages = set()
    for addresses in (["10.20.30.40"], ["fd00::1"], []):
        with structlog.testing.capture_logs() as logged, pytest.raises(CallRefused) as refused:
            post("https://vm.internal.test/", allowed=[], resolve=resolving(addresses))
        messages.add(str(refused.value))
        assert [line["event"] for line in logged] == ["outbound.refused"]
        assert all(address in logged[0]["reason"] for address in addresses)
    assert messages == {"vm.internal.test leads to no public address"}


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]"])
def test_loopback_is_refused_however_it_is_spelled(receiver, host):
    with pytest.raises(CallRefused, match="no public address"):
        post(receiver.url.replace("127.0.0.1", host), allowed=[])
    assert receiver.calls == []


def test_public_addresses_are_called_over_tls_alone():
    with pytest.raises(CallRefused, match="https"):
        post("http://hooks.efface.test/", resolve=resolving(["1.1.1.1"]))


def test_a_redirect_is_an_answer(receiver):
    receiver.answers = [(302, {"Location": receiver.url + "/elsewhere"})]

    assert post(receiver.url).status == 302
    assert len(receiver.calls) == 1


def test_proxies_of_the_environment_are_not_used(receiver, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")

    assert post(receiver.url).status == 204


def test_silence_ends_with_the_time_limit(receiver):
    receiver.open.clear()
    with pytest.raises(CallFailed, match=r"no answer within 0\.2 s"):
        post(receiver.url, timeout_seconds=0.2)


def test_an_answer_that_drips_ends_with_the_time_limit():
    """Each byte comes soon after the one before, so that only a limit of the whole helps."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        over = threading.Event()

        def drip():
            connection, _ = server.accept()
            with connection:
                while not over.wait(0.02):
                    try:
                        connection.sendall(b"H")
                    except OSError:
                        return

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        with pytest.raises(CallFailed, match="no answer within"):
            post(f"http://127.0.0.1:{server.getsockname()[1]}/", timeout_seconds=0.3)
        over.set()
        thread.join(5)


@pytest.mark.parametrize(("url", "resolve"), [
    ("https://nowhere.invalid/", None), ("https://hooks.efface.test/", resolving([])),
])  # fmt: skip
def test_a_name_without_an_address(url, resolve):
    with pytest.raises(CallFailed, match="leads to no public address"):
        post(url, **({"resolve": resolve} if resolve else {}))


def test_a_closed_port_is_a_failed_call():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(CallFailed, match="ConnectError"):
        post(f"http://127.0.0.1:{port}/")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for NAME, signed by itself."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    return path


def test_tls_is_for_the_name_though_the_connection_goes_to_the_address(certificate):
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    serving.load_cert_chain(certificate)
    asked = []
    serving.sni_callback = lambda _socket, name, _context: asked.append(name)
    trusting = ssl.create_default_context(cafile=certificate)
    with receiving(serving) as receiver:
        assert post(named(receiver.url), resolve=resolving(["127.0.0.1"]), ssl_context=trusting).status == 204
        assert asked == [NAME]
        with pytest.raises(CallFailed, match="certificate"):
            other = receiver.url.replace("127.0.0.1", "other.efface.test")
            post(other, resolve=resolving(["127.0.0.1"]), ssl_context=trusting)
        with pytest.raises(CallFailed, match="certificate"):
            post(named(receiver.url), resolve=resolving(["127.0.0.1"]))
    assert len(receiver.calls) == 1
