"""A gateway that is killed while it receives an upload leaves it unsealed on disk; the next one deletes it.

One that is told to end leaves nothing.
"""

import http.client
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx

from shared.ports.embedded_servers import free_port
from tests.support.fleet import Member, wait_until


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/live").is_success
    except httpx.TransportError:
        return False


@contextmanager
def gateway(settings, folder: Path) -> Iterator[tuple[Member, int]]:
    port = free_port()
    member = Member(["api.cli", "api"], settings.model_copy(update={"port": port}), folder / "api.log", folder)
    try:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}"), "the gateway does not start")
        yield member, port
    finally:
        member.signal_all(signal.SIGKILL)
        member.wait_gone()


def uploads(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("file") if path.stat().st_size]


def test_what_it_was_receiving_is_deleted_by_the_next(settings, make_key):
    with TemporaryDirectory(prefix="gateway-") as name:
        folder = Path(name)
        with gateway(settings, folder) as (_, port):
            connection = http.client.HTTPConnection("127.0.0.1", port)
            connection.putrequest("POST", "/datasets?name=horses")
            connection.putheader("Authorization", f"Bearer {make_key('alice')}")
            connection.putheader("Content-Type", "application/octet-stream")
            connection.putheader("Content-Length", "10000000")
            connection.endheaders(b"a picture, as it is" * 100_000)  # a piece that is written is a MiB
            wait_until(lambda: uploads(folder), "nothing was received")
        connection.close()
        assert uploads(folder), "nothing was left, so there is nothing to delete"
        with gateway(settings, folder) as (second, _):
            assert not uploads(folder)
            second.stop()
        assert not list(folder.glob("efface-api-*"))
