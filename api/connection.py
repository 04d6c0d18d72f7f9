"""One HTTP connection to a server, and what can go wrong with it. `api.client` gives it typed
methods.
"""

import hashlib
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import httpx

from api.packing import Body

CHUNK_BYTES = 1024 * 1024
UPLOAD_ANSWER_SECONDS = 3600.0
"""The server checks every image of a data set before it answers."""

Advance = Callable[[int], None]
"""Is told of bytes that were sent or received."""


class ApiProblem(Exception):
    """The server refused a call; `str()` is what it said."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        super().__init__(
            problem.get("detail") or problem.get("title") or f"the server answered {status}"
        )
        self.status = status
        self.code = str(problem.get("code", ""))
        self.errors: list[dict[str, str]] = list(problem.get("errors") or [])

    @classmethod
    def of(cls, response: httpx.Response) -> Self:
        """Return the problem in a response that was read."""
        try:
            body = response.json()
        except ValueError:
            body = {}
        return cls(response.status_code, body if isinstance(body, dict) else {})


class Unreachable(Exception):
    """The server does not answer, or the connection broke."""


class Damaged(Exception):
    """A download is not what the server said it would be."""


class Connection:
    """Sends requests with a key."""

    def __init__(
        self, base_url: str, key: str, timeout_seconds: float, transport: httpx.BaseTransport | None
    ) -> None:
        self._http = httpx.Client(
            base_url=base_url,
            headers={"Authorization": f"Bearer {key}"},
            timeout=httpx.Timeout(timeout_seconds, connect=5.0),
            transport=transport,
            follow_redirects=True,  # httpx drops the key when a redirect leaves the host
        )

    def close(self) -> None:
        """Close it."""
        self._http.close()

    def call(self, method: str, path: str, **options: Any) -> httpx.Response:  # noqa: ANN401 - httpx's own
        """Return the answer to a request."""
        with _translated():
            response = self._http.request(method, path, **options)
        return _accepted(response)

    @contextmanager
    def opened(self, path: str, **options: Any) -> Iterator[httpx.Response]:  # noqa: ANN401 - httpx's own
        """Open an answer whose body is read bit by bit."""
        with _translated(), self._http.stream("GET", path, **options) as response:
            if response.is_error:
                response.read()
            yield _accepted(response)

    def upload(
        self, path: str, body: Body, params: Mapping[str, str], advance: Advance | None
    ) -> httpx.Response:
        """Send a file, or a folder packed on the way, as the body of a POST."""
        headers = {"Content-Length": str(body.size), "Content-Type": "application/octet-stream"}
        timeout = httpx.Timeout(UPLOAD_ANSWER_SECONDS, connect=5.0)
        return self.call(
            "POST",
            path,
            content=_told(body, advance),
            params=params,
            headers=headers,
            timeout=timeout,
        )

    def download(
        self, path: str, params: Mapping[str, str], target: Path, advance: Advance | None
    ) -> None:
        """Write an answer to a file, which is there only once it is whole.

        Raises:
            Damaged: its SHA-256 is not the one that the server gave.
        """
        part = target.with_name(f"{target.name}.part")
        try:
            with self.opened(path, params=params) as response, part.open("wb") as out:
                first = (
                    response.history[0] if response.history else response
                )  # a redirect carries the digest, too
                said = (
                    first.headers.get("Repr-Digest", "").removeprefix("sha-256=:").removesuffix(":")
                )
                digest = hashlib.sha256()
                for chunk in response.iter_bytes(CHUNK_BYTES):
                    out.write(chunk)
                    digest.update(chunk)
                    if advance is not None:
                        advance(len(chunk))
            if b64decode(said) != digest.digest():
                raise Damaged(
                    f"{target.name} arrived damaged: its SHA-256 is not the one that the "
                    "server "
                    "gave"
                )
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)


def _told(body: Body, advance: Advance | None) -> Iterator[bytes]:
    for chunk in body.chunks():
        yield chunk
        if advance is not None:
            advance(len(chunk))


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (httpx.TransportError, httpx.InvalidURL) as error:
        raise Unreachable(
            f"The server cannot be reached: {error or type(error).__name__}"
        ) from error


def _accepted(response: httpx.Response) -> httpx.Response:
    if response.is_error:
        raise ApiProblem.of(response)
    return response
