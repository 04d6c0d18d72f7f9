"""What a client may hold of a gateway without having asked for anything."""

import socket
import threading
import time
from collections.abc import Iterator

import httpx
import pytest
import uvicorn

from api import json_route, server
from api.app import create_app
from api.server import TimedProtocol
from shared.ports.embedded_servers import free_port
from tests.support.fleet import wait_until

PATIENCE_SECONDS = 30


@pytest.fixture
def port(settings, database, logs, monkeypatch) -> Iterator[int]:
    """The port of a gateway that has little patience and few connections."""
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.3)
    number = free_port()
    config = uvicorn.Config(
        create_app(settings),
        port=number,
        http=TimedProtocol,
        log_config=None,
        limit_concurrency=8,
        timeout_keep_alive=60,
    )
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    wait_until(lambda: running.started, "the server does not start")
    yield number
    running.should_exit = True
    thread.join(PATIENCE_SECONDS)


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS)


def answer(connection: socket.socket) -> bytes:
    """Return a whole answer: head and body may come apart."""
    found = b""
    while not found.endswith(b'{"status":"up"}'):
        found += (piece := connection.recv(65536))
        assert piece, f"the server has hung up after {found!r}"
    return found


def is_closed(connection: socket.socket) -> bool:
    """Wait until the server closes the connection."""
    try:
        while connection.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return True


@pytest.mark.parametrize("begun", [b"", b"GET /health/live HT", b"GET /health/live HTTP/1.1\r\nHost: x\r\n"])
def test_half_a_head_is_not_waited_for(port, begun):
    with connected(port) as connection:
        connection.sendall(begun)
        assert is_closed(connection)


def test_nor_that_of_a_second_request(port, monkeypatch):
    monkeypatch.setattr(server, "HEAD_SECONDS", 3.0)  # enough for the first one on a machine that is busy
    with connected(port) as connection:
        connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\nGET /health/live HT")
        assert b"200" in connection.recv(65536)
        assert is_closed(connection)


def test_a_connection_that_waits_for_its_next_request_is_kept(port, monkeypatch):
    monkeypatch.setattr(server, "HEAD_SECONDS", 3.0)
    with connected(port) as connection:
        for pause in (3.5, 0):  # longer than a head may take
            connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"200" in answer(connection)
            time.sleep(pause)


def test_beyond_the_limit_of_connections_the_answer_is_503(port, monkeypatch):
    monkeypatch.setattr(server, "HEAD_SECONDS", PATIENCE_SECONDS)
    held = [connected(port) for _ in range(8)]
    wait_until(lambda: httpx.get(f"http://127.0.0.1:{port}/health/live").status_code == 503, "it is never 503")
    for connection in held:
        connection.close()
    wait_until(lambda: httpx.get(f"http://127.0.0.1:{port}/health/live").status_code == 200, "it is 503 for ever")


def test_a_body_that_does_not_come_is_408(server_url, make_key, monkeypatch):
    monkeypatch.setattr(json_route, "BODY_SECONDS", 0.3)
    with connected(int(server_url.rsplit(":", 1)[1])) as connection:
        head = f"POST /jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {make_key()}\r\nContent-Length: 100\r\n"
        connection.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n{")
        answer = connection.recv(65536)

    assert answer.startswith(b"HTTP/1.1 408")
    assert b"application/problem+json" in answer
    assert b"connection: close" in answer


@pytest.fixture
def server_url(serve, settings) -> str:
    return serve(settings)


def test_a_logged_path_is_cut(server_url, logs):
    httpx.get(f"{server_url}/{'x' * 5000}")
    (line,) = (line for line in logs if line["event"] == "http.request")

    assert len(line["path"]) == 200
