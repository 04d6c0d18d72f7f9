"""Bodies as they were before their client compressed them (Content-Encoding), within bounds.

What is counted against a limit is what comes out. A stream that expands too much is stopped on
the way, however little was sent."""

import zlib
from collections.abc import AsyncIterator, Iterator
from http import HTTPStatus

from fastapi import HTTPException, Request
from starlette.concurrency import run_in_threadpool

from shared.errors import InvalidRequest, TooLarge

ACCEPTED = "gzip, deflate"
MAX_RATIO = 200
"""Decoded over sent: as for archives; deflate reaches 1,000, but nothing that anybody uploads
does.
"""
RATIO_FROM_BYTES = 1024 * 1024
"""A small body may be as repetitive as it likes."""
PIECE_BYTES = 256 * 1024
MEMBERS, MEMBER_BYTES = 16, 1024
"""A body may have so many gzip members, and one more for each KiB."""
THREAD_FROM_BYTES = 4096
"""A larger piece is decoded in a thread."""

_GZIP, _ZLIB, _RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS


def check_coding(request: Request) -> str | None:
    """Return the coding of a body: `gzip`, `deflate`, or None where it is sent as it is.

    Raises:
        HTTPException: 415, with the codings that are taken in Accept-Encoding (RFC 9110, section
            15.5.16).
    """
    named = request.headers.get("content-encoding", "").strip().lower()
    coding = named.removeprefix("x-")
    if coding in ("", "identity"):
        return None
    if coding not in ("gzip", "deflate"):
        said = named if len(named) <= 40 else named[:40] + "..."
        raise HTTPException(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            (
                f"The Content-Encoding {said!r} is not known here; send "
                f"{ACCEPTED.replace(', ', ' or ')}, or the body as it is."
            ),
            {"Accept-Encoding": ACCEPTED},
        )
    return coding


async def decoded(
    chunks: AsyncIterator[bytes], coding: str | None, too_large: TooLarge, limit: int
) -> AsyncIterator[bytes]:
    """Yield a body decoded, in pieces of at most `PIECE_BYTES`, of which none lies beyond `limit`
    bytes.

    Raises:
        TooLarge: `too_large` where more than `limit` bytes came, or came out; another where it
            expands more than anything sound does.
        InvalidRequest: it is damaged or cut off.
    """
    decoder = _Decoder(coding) if coding else None
    received = came_out = 0
    async for chunk in chunks:
        received += len(chunk)
        if received > limit:  # also where nothing comes out of it
            raise too_large
        async for piece in _pieces(decoder, chunk) if decoder else _whole(chunk):
            came_out += len(piece)
            if came_out > limit:
                raise too_large
            yield piece
    if decoder:
        decoder.check_end()


async def _whole(chunk: bytes) -> AsyncIterator[bytes]:
    yield chunk


async def _pieces(decoder: "_Decoder", chunk: bytes) -> AsyncIterator[bytes]:
    pieces = decoder.feed(chunk)
    small = len(chunk) < THREAD_FROM_BYTES
    while (
        piece := next(pieces, None) if small else await run_in_threadpool(next, pieces, None)
    ) is not None:
        yield piece
        small = False  # it was not as small as it looked


class _Decoder:
    """One body, which may be several gzip members one after the other."""

    def __init__(self, coding: str) -> None:
        self._coding = coding
        self._member = zlib.decompressobj(_GZIP if coding == "gzip" else _ZLIB)
        self._members = 1
        self._sent_bytes = self._decoded_bytes = 0

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yield what comes out of the next bytes."""
        self._sent_bytes += len(chunk)
        rest, piece = chunk, b""
        while rest or len(piece) == PIECE_BYTES:  # a full piece may have left some inside
            if self._member.eof:
                if not rest:
                    break
                self._begin_member()
            piece = self._decompress(rest)
            rest = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
            self._decoded_bytes += len(piece)
            if self._decoded_bytes > max(RATIO_FROM_BYTES, MAX_RATIO * self._sent_bytes):
                raise TooLarge(
                    f"The body expands to more than {MAX_RATIO} times its size; send it as it is."
                )
            if piece:
                yield piece

    def _begin_member(self) -> None:
        self._members += 1
        if self._coding != "gzip":
            raise self._damaged("goes on after its end")
        if (
            self._members > MEMBERS + self._sent_bytes // MEMBER_BYTES
        ):  # each costs a window, whatever it holds
            raise self._damaged("has very many parts")
        self._member = zlib.decompressobj(_GZIP)

    def _decompress(self, data: bytes) -> bytes:
        try:
            return self._member.decompress(data, PIECE_BYTES)
        except zlib.error as error:
            if self._coding == "deflate" and self._sent_bytes == len(
                data
            ):  # some send it without the zlib header
                self._member = zlib.decompressobj(_RAW)
                self._coding = "deflate (without header)"
                return self._decompress(data)
            raise self._damaged("is damaged") from error

    def check_end(self) -> None:
        """Refuse a body that ends in its middle.

        Raises:
            InvalidRequest: it does.
        """
        if not self._member.eof and self._sent_bytes:
            raise self._damaged("is cut off")

    def _damaged(self, how: str) -> InvalidRequest:
        return InvalidRequest.at(
            "", f"the body {how}: it cannot be decoded as Content-Encoding {self._coding}"
        )
