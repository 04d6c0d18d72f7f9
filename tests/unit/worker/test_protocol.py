"""Messages over a socket, however they are cut."""

import socket
from collections.abc import Iterator

import pytest

from worker.protocol import Lines


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, Lines]]:
    """A raw end and a speaking end of one connection."""
    raw, other = socket.socketpair()
    with raw, other:
        yield raw, Lines(other)


def test_messages_come_whole(ends: tuple[socket.socket, Lines]) -> None:
    raw, lines = ends
    raw.sendall(b'{"type": "a"}\n{"type": ')
    assert lines.receive(1) == [{"type": "a"}]
    raw.sendall(b'"b"')
    assert lines.receive(1) == []
    raw.sendall(b'}\n{"type": "c"}\n')
    assert lines.receive(1) == [{"type": "b"}, {"type": "c"}]


def test_silence_is_no_message_and_a_closed_end_is_none(ends: tuple[socket.socket, Lines]) -> None:
    raw, lines = ends
    assert lines.receive(0) == []
    raw.close()
    assert lines.receive(1) is None


def test_what_is_sent_is_a_line(ends: tuple[socket.socket, Lines]) -> None:
    raw, lines = ends
    lines.send({"type": "step", "metrics": {"loss": 0.5}})
    assert raw.recv(100) == b'{"type": "step", "metrics": {"loss": 0.5}}\n'
