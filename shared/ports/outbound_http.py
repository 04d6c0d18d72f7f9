"""Calls to addresses that a stranger chose, so that they reach nothing that only we can reach
(SSRF).

The host is resolved once. Every address that it has must be allowed, and the connection goes to
one of those that were checked, whatever the name means a moment later; Host, SNI and the
certificate are still those of the name. Redirects are not followed, proxies of the environment
not used, the answer's body not read. What a name means, or whether it means anything, is told to
the log alone: refusals would otherwise spell out the names of the operator's own network."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from ssl import SSLContext

import httpx
import structlog

from shared.ports.public_addresses import Address, Network, is_listed, is_public, parsed

log = structlog.get_logger()

USER_AGENT = "efface-webhooks/1"

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""(host, port) -> its addresses; raises OSError where it has none."""


class CallFailed(Exception):
    """No answer was got, and the message says why."""


class CallRefused(CallFailed):
    """The address is none that may be called."""


@dataclass(frozen=True, slots=True)
class Answer:
    """How a call was answered."""

    status: int
    retry_after: str | None


async def resolve(host: str, port: int) -> Sequence[str]:
    """Return the addresses that the system knows for a host."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


class Outbound:
    """Posts to URLs of strangers."""

    def __init__(
        self,
        *,
        allowed: Sequence[Network],
        timeout_seconds: float,
        resolve: Resolve = resolve,
        ssl_context: SSLContext | None = None,
    ) -> None:
        """Allow calls to public addresses over TLS, and to the networks `allowed` with or
        without it.
        """
        self._allowed, self._timeout_seconds, self._resolve = (
            tuple(allowed),
            timeout_seconds,
            resolve,
        )
        self._ssl_context = ssl_context

    async def check(self, url: str) -> None:
        """Find out whether a URL may be called now.

        Raises:
            CallFailed: it may not, or its host has no address: both look alike (`CallRefused`).
        """
        async with _within(self._timeout_seconds):
            await self._address(httpx.URL(url))

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Call a URL; the whole call, resolution included, ends within the time limit.

        Raises:
            CallFailed: it may not be called (`CallRefused`), or there was no answer.
        """
        target = httpx.URL(url)
        try:
            async with _within(self._timeout_seconds), self._client() as client:
                address = await self._address(target)
                request = client.build_request(
                    "POST",
                    target.copy_with(host=str(address)),
                    content=body,
                    headers={**headers, "Host": target.netloc.decode(), "User-Agent": USER_AGENT},
                    extensions={"sni_hostname": _host(target)},
                )
                response = await client.send(request, stream=True)
                await response.aclose()
        except httpx.HTTPError as error:
            raise CallFailed(
                f"{type(error).__name__}: {str(error)[:200] or 'no answer'}"
            ) from error
        return Answer(response.status_code, response.headers.get("retry-after"))

    async def _address(self, url: httpx.URL) -> Address:
        """Return the address to call."""
        host, port = _host(url), url.port or (443 if url.scheme == "https" else 80)
        try:
            addresses = [parsed(text) for text in await self._resolve(host, port)]
        except (OSError, UnicodeError) as error:
            raise _refused(host, reason=str(error)) from error
        if not addresses:
            raise _refused(host, reason="no address")
        for address in addresses:
            listed = is_listed(address, self._allowed)
            if not listed and not is_public(address):
                raise _refused(host, reason=f"is {address}")
            if not listed and url.scheme != "https":
                raise CallRefused("a public address is called by https alone")
        return addresses[0]

    def _client(self) -> httpx.AsyncClient:
        """Return a client for one call: a connection that was opened for one name is never used
        for another.
        """
        return httpx.AsyncClient(
            verify=self._ssl_context or _system_trust(),
            trust_env=False,
            follow_redirects=False,
            timeout=self._timeout_seconds,
        )


@asynccontextmanager
async def _within(seconds: float) -> AsyncIterator[None]:
    """Limit the time of a whole call: limits of single reads would let a slow answer last for
    ever.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise CallFailed(f"no answer within {seconds:g} s") from error


def _refused(host: str, *, reason: str) -> CallRefused:
    log.warning("outbound.refused", host=host[:253], reason=reason)
    return CallRefused(f"{host} leads to no public address")


def _host(url: httpx.URL) -> str:
    return url.raw_host.decode()


@cache
def _system_trust() -> SSLContext:
    """Return certifi's authorities, or those of SSL_CERT_FILE; loading them costs more than a
    call.
    """
    return httpx.create_ssl_context()
