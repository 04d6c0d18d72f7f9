"""Finds requests that hold a connection of the database while the object storage answers."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
import structlog
from sqlalchemy import event
from sqlalchemy.pool import Pool

from shared.ports.object_storage import PROBED, Storage
from shared.request_rules.classes import class_counts

METHODS = ("put", "get", "size", "list", "delete", "download", "sign")
STREAMS = ("stream",)


def request_of() -> object:
    """Return the id of the request whose work is done, whichever thread does it; None outside of any."""
    return structlog.contextvars.get_contextvars().get("request_id")


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Give a list to which is added what a request asks of a storage, or reads of an archive, while it holds a connection."""
    held: Counter[object] = Counter()
    found: list[str] = []

    def taken(connection: object, record: Any, proxy: object) -> None:
        if request := request_of():
            record.info["request"] = request
            held[request] += 1

    def given_back(connection: object, record: Any) -> None:
        if request := record.info.pop("request", None):
            held[request] -= 1

    def look(name: str, key: object) -> None:
        if held[request_of()] > 0 and key != (PROBED,):  # readiness looks at all parts at once, each in a thread
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

    def reading(path: Path, *arguments: Any, **options: Any) -> dict[str, int]:
        look("class_counts", path)
        return class_counts(path, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr("shared.request_rules.references.class_counts", reading)
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
