"""Finds whoever holds a connection of the database while the object storage answers."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import pytest
import structlog
from sqlalchemy import event
from sqlalchemy.pool import Pool

from shared.storage import Storage

METHODS = ("put", "get", "size", "list", "delete", "ping", "download", "sign")
STREAMS = ("stream",)


def owner() -> object:
    """Return whose work is done: a request's, whichever thread it is in, else the thread's own."""
    return structlog.contextvars.get_contextvars().get("request_id") or threading.get_ident()


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Give a list to which every call of a storage is added that is made while its caller holds a connection."""
    held: Counter[object] = Counter()
    found: list[str] = []

    def taken(connection: object, record: Any, proxy: object) -> None:
        record.info["owner"] = owner()
        held[record.info["owner"]] += 1

    def given_back(connection: object, record: Any) -> None:
        held[record.info.pop("owner", None)] -= 1

    def look(name: str, key: object) -> None:
        if held[owner()] > 0:
            found.append(f"{name} {key}")

    def calling(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def call(self: Storage, *arguments: Any, **options: Any) -> Any:
            look(name, arguments[:1])
            return method(self, *arguments, **options)

        return call

    def streaming(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def call(self: Storage, *arguments: Any, **options: Any) -> Iterator[bytes]:
            for chunk in method(self, *arguments, **options):
                look(name, arguments[:1])
                yield chunk

        return call

    with monkeypatch.context() as patch:
        for name in METHODS:
            patch.setattr(Storage, name, calling(name, getattr(Storage, name)))
        for name in STREAMS:
            patch.setattr(Storage, name, streaming(name, getattr(Storage, name)))
        event.listen(Pool, "checkout", taken)
        event.listen(Pool, "checkin", given_back)
        try:
            yield found
        finally:
            event.remove(Pool, "checkout", taken)
            event.remove(Pool, "checkin", given_back)
