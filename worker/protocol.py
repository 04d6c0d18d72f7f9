"""What a supervisor and its child say to one another: JSON lines over a Unix socket.

    supervisor -> child   {"type": "job", "spec": {...}, "lease_seconds": 90}, then
                          {"type": "alive"} with every heartbeat
    child -> supervisor   {"type": "hello", "pid": 1234}, {"type": "stage", ...}, {"type": "step",
    ...}, at last
                          {"type": "result", "result": {...}}, or {"type": "error", "error": {...},
                          "final": true} (false where another attempt may end better)

Silence is a message too: each side takes a closed socket for the death of the other.
"""

import json
import select
import socket
from typing import Any

Message = dict[str, Any]


class Lines:
    """Messages over a connected socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._buffer = b""

    def send(self, message: Message) -> None:
        """Send one message whole."""
        self._socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self, timeout: float | None) -> list[Message] | None:
        """Return the messages that came within `timeout` seconds: as soon as there is one, none if
        time ran out.

        None means that the other side is gone.
        """
        # Not with settimeout, which would hold for what another thread sends meanwhile, too.
        readable, _, _ = select.select([self._socket], [], [], timeout)
        if not readable:
            return []
        try:
            data = self._socket.recv(1 << 16)
        except ConnectionError:
            return None
        if not data:
            return None
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
