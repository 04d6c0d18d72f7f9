"""Customers of the storm: they ask over HTTP, and ask again under the same `Idempotency-Key` until they are answered."""

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx

from shared.states import JobState
from tests.support import requests

PATIENCE_SECONDS = 300.0
PAUSE_SECONDS = 0.2
WISHES = {"pass": 78, "miss": 7, "fail": 5, "die": 4, "cancel": 6}
"""How often a job is to do what: `tests.support.pipelines`, or to be cancelled by its owner."""
ENDS = {
    "pass": {JobState.SUCCEEDED},
    "die": {JobState.SUCCEEDED},
    "miss": {JobState.FAILED},
    "fail": {JobState.FAILED},
    "cancel": {JobState.CANCELLED},
}


@dataclass(slots=True)
class Asked:
    """One thing that a customer wants, and what became of it."""

    number: int
    wish: str
    seconds: float
    """Of each of the five stages."""
    images: bool
    twice: bool
    """Another tool asks for the same, under a key of its own."""
    idempotency_key: str
    accepted: set[str] = field(default_factory=set)
    """Ids of the jobs that the service has said to have."""
    ends: set[JobState] = field(default_factory=set)
    """The states in which it may end."""


class Customers:
    """Everybody who asks for something. Whoever is told no by accident asks again."""

    def __init__(self, url: str, key: str, *, clip: Path, jobs: int, images: float, chance: random.Random) -> None:
        self._clip, self._chance = clip, chance
        self._archive = requests.archive(clip.parent / "forget.zip", "horse", images=3).read_bytes()
        self._client = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=30.0)
        self._line = iter([self._wanted(number, images) for number in range(jobs)])
        self._lock = threading.Lock()
        self._unserved = jobs
        self.wanted: list[Asked] = []
        self.refused: list[str] = []
        self.asked: Counter[str] = Counter()

    def subscribe(self, url: str) -> None:
        """Register a webhook."""
        answer = self._ask("POST", "/webhooks", json={"url": url})
        assert answer.status_code == httpx.codes.CREATED, answer.text

    @contextmanager
    def coming(self, customers: int) -> Iterator[None]:
        """Let customers ask while the block lasts, so many at a time; wait until all of them were answered."""
        threads = [threading.Thread(target=self._come, daemon=True) for _ in range(customers)]
        for thread in threads:
            thread.start()
        yield
        for thread in threads:
            thread.join(PATIENCE_SECONDS)
        self._client.close()

    def served(self) -> bool:
        """True once everybody was answered."""
        return self._unserved == 0

    def _wanted(self, number: int, images: float) -> Asked:
        (wish,) = self._chance.choices(list(WISHES), list(WISHES.values()))
        return Asked(
            number,
            wish,
            seconds=0.5 if wish == "cancel" else self._chance.uniform(0.02, 0.1),
            images=self._chance.random() < images,
            twice=wish == "pass" and self._chance.random() < 0.1,
            idempotency_key=str(UUID(int=self._chance.getrandbits(128), version=4)),
            ends=set(ENDS[wish]),
        )

    def _come(self) -> None:
        while True:
            with self._lock:
                asked = next(self._line, None)
                if asked is None:
                    return
                self.wanted.append(asked)
            try:
                self._serve(asked)
            except Exception as error:
                self.refused.append(f"{asked.wish} {asked.number}: {error!r}")
            with self._lock:
                self._unserved -= 1

    def _serve(self, asked: Asked) -> None:
        for again in range(1 + asked.twice):
            answer = self._submit(asked, f"{asked.idempotency_key}-{again}")
            asked.accepted.add(answer["id"])
            self.asked["asked for twice" if again else asked.wish] += 1
        if asked.wish == "cancel":
            cancelled = self._ask("POST", f"/jobs/{answer['id']}/cancel")
            if cancelled.status_code == httpx.codes.CONFLICT:  # it came too late
                asked.ends = {JobState.SUCCEEDED}

    def _submit(self, asked: Asked, key: str) -> dict[str, Any]:
        """Submit until it is accepted; where an upload was purged before its job came, upload it again."""
        for uploads in range(5):
            body = self._body(asked)
            if asked.images:
                body["data"] = {"forget": self._upload(f"{key}-{uploads}")}
            answer = self._ask("POST", "/jobs", json=body, headers={"Idempotency-Key": f'"{key}"'})
            if answer.status_code in (httpx.codes.OK, httpx.codes.ACCEPTED):
                found: dict[str, Any] = answer.json()
                return found
            assert asked.images, answer.text
        raise AssertionError(answer.text)

    def _upload(self, key: str) -> str:
        answer = self._ask(
            "POST",
            "/datasets",
            params={"name": key},
            content=self._archive,
            headers={"Content-Type": "application/octet-stream", "Idempotency-Key": f'"{key}"'},
        )
        assert answer.status_code == httpx.codes.CREATED, answer.text
        return str(answer.json()["id"])

    def _body(self, asked: Asked) -> dict[str, Any]:
        metadata = {"seconds": f"{asked.seconds:.3f}"}
        if asked.wish in ("miss", "fail"):
            metadata["what"] = asked.wish
        if asked.wish == "die":
            metadata |= {"what": "die", "attempts": "1"}
        request = requests.names_only(self._clip, metadata=metadata, external_id=f"DSR-{asked.number}")
        return request.model_dump(mode="json", by_alias=True, exclude_unset=True)

    def _ask(self, method: str, path: str, **what: Any) -> httpx.Response:
        """Ask until there is an answer that is not about a passing trouble."""
        end = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                answer = self._client.request(method, path, **what)
                self.asked["answers that were 500"] += answer.status_code == httpx.codes.INTERNAL_SERVER_ERROR
                passing = answer.status_code >= 500 or answer.status_code == httpx.codes.TOO_MANY_REQUESTS
                in_flight = "idempotency_in_flight" in answer.text
                if not passing and not in_flight:
                    return answer
            except httpx.TransportError:
                pass
            assert time.monotonic() < end, f"{method} {path} was not answered"
            time.sleep(PAUSE_SECONDS)
