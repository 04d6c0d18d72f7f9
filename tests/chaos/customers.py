"""Customers of the storm: they ask over HTTP, and ask again under the same `Idempotency-Key` until they are answered."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx

from shared.states import JobState, Scope
from tests.chaos.listeners import STREAM_TIMEOUT, End, Heard, hear
from tests.support import requests

PATIENCE_SECONDS = 300.0
PAUSE_SECONDS = 0.2
SMALL_EVERY = 10
"""One job in so many is the small tenant's, the others are the large one's."""
LEAVE_EVERY = 20
"""One job in so many is listened to with a key that is revoked meanwhile."""
OUTLIVED_SECONDS = 20.0
"""A stream that goes on for longer than this after its key was revoked has outlived it. Keys are looked at every two
seconds, once Postgres answers."""
WISHES = {"pass": 78, "miss": 7, "fail": 5, "die": 4, "cancel": 6}
"""How often a job is to do what: `tests.support.pipelines`, or to be cancelled by its owner."""
ENDS = {
    "pass": {JobState.SUCCEEDED},
    "die": {JobState.SUCCEEDED},
    "miss": {JobState.FAILED},
    "fail": {JobState.FAILED},
    "cancel": {JobState.CANCELLED},
}


@dataclass(frozen=True, slots=True)
class Tenant:
    """Whose customers ask."""

    id: str
    key: str
    """Of an administrator."""


@dataclass(slots=True)
class Asked:
    """One thing that a customer wants, and what became of it."""

    number: int
    tenant: Tenant
    wish: str
    seconds: float
    """Of each of the five stages."""
    images: bool
    twice: bool
    """Another tool asks for the same, under a key of its own."""
    discards: bool
    """A data set is uploaded and deleted besides."""
    leaves: bool
    """The job is listened to with a key that is revoked meanwhile."""
    idempotency_key: str
    accepted: set[str] = field(default_factory=set)
    """Ids of the jobs that the service has said to have."""
    ends: set[JobState] = field(default_factory=set)
    """The states in which it may end."""


class Customers:
    """Everybody who asks for something. Whoever is told no by accident asks again."""

    def __init__(
        self,
        url: str,
        tenants: Sequence[Tenant],
        *,
        clip: Path,
        jobs: int,
        images: float,
        chance: random.Random,
        accepted: Callable[[str, str], None] = lambda _job, _key: None,
    ) -> None:
        """Make them. `tenants` are a large and a small one; `accepted` is told each job and a key that may see it."""
        self._clip, self._chance, self._tenants, self._accepted = clip, chance, tenants, accepted
        self._archive = requests.archive(clip.parent / "forget.zip", "horse", images=3).read_bytes()
        self._client = httpx.Client(base_url=url, timeout=30.0)
        self._line = iter([self._wanted(number, images) for number in range(jobs)])
        self._lock = threading.Lock()
        self._unserved = jobs
        self.wanted: list[Asked] = []
        self.refused: list[str] = []
        self.asked: Counter[str] = Counter()
        self.deleted: set[str] = set()
        """Ids of data sets whose deletion was confirmed."""
        self.left_after: list[float] = []
        """How many seconds each stream went on whose key was revoked."""

    def subscribe(self, url: str) -> None:
        """Register a webhook of each tenant's."""
        for tenant in self._tenants:
            answer = self._ask(tenant, "POST", "/webhooks", json={"url": url})
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
        large, small = self._tenants
        return Asked(
            number,
            small if number % SMALL_EVERY == SMALL_EVERY - 1 else large,
            wish,
            seconds=0.5 if wish == "cancel" else self._chance.uniform(0.02, 0.1),
            images=self._chance.random() < images,
            twice=wish == "pass" and self._chance.random() < 0.1,
            discards=self._chance.random() < 0.1,
            leaves=number % LEAVE_EVERY == LEAVE_EVERY // 2,
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
            self._accepted(answer["id"], asked.tenant.key)
            self.asked["asked for twice" if again else asked.wish] += 1
        if asked.leaves:
            self._leave(asked, answer["id"])
        if asked.wish == "cancel":
            cancelled = self._ask(asked.tenant, "POST", f"/jobs/{answer['id']}/cancel")
            if cancelled.status_code == httpx.codes.CONFLICT:  # it came too late
                asked.ends = {JobState.SUCCEEDED}
        if asked.discards:
            self._discard(asked)

    def _leave(self, asked: Asked, job_id: str) -> None:
        """Listen to a job, which is on hold where that is possible, and have the key revoked: the stream must end."""
        held = self._ask(asked.tenant, "POST", f"/jobs/{job_id}/hold", json={"reason": "who are they?"})
        wanted = {"name": "leaves", "scopes": [Scope.JOBS_READ]}
        key = self._ask(asked.tenant, "POST", "/keys", json=wanted).json()
        heard: Heard = []
        ends: list[tuple[End, float]] = []
        thread = threading.Thread(target=self._overhear, args=(job_id, key["secret"], heard, ends), daemon=True)
        thread.start()
        while not heard and thread.is_alive():
            time.sleep(0.05)
        revoked = self._ask(asked.tenant, "POST", f"/keys/{key['id']}/revoke")
        assert revoked.status_code == httpx.codes.OK, revoked.text
        at = time.monotonic()
        thread.join(2 * OUTLIVED_SECONDS)
        if held.status_code == httpx.codes.OK:
            released = self._ask(asked.tenant, "POST", f"/jobs/{job_id}/release")
            assert released.status_code in (httpx.codes.OK, httpx.codes.CONFLICT), released.text  # done, unanswered
        end, ended_at = ends[0] if ends else (End.KEY, time.monotonic())
        if end is End.KEY:  # else the job ended sooner, which tells nothing
            self.left_after.append(ended_at - at)

    def _overhear(self, job_id: str, key: str, heard: Heard, ends: list[tuple[End, float]]) -> None:
        """Listen until everything was told or the key is good no longer, and note when."""
        with httpx.Client(base_url=self._client.base_url, timeout=STREAM_TIMEOUT) as client:
            while (end := hear(client, job_id, key, heard)) in (End.AWAY, End.BROKEN):
                time.sleep(PAUSE_SECONDS)
        ends.append((end, time.monotonic()))

    def _discard(self, asked: Asked) -> None:
        """Upload a data set that no job will use, and delete it."""
        dataset = self._upload(asked.tenant, f"{asked.idempotency_key}-discarded")
        receipt = self._ask(asked.tenant, "DELETE", f"/datasets/{dataset}")
        assert receipt.status_code == httpx.codes.OK, receipt.text
        gone = self._ask(asked.tenant, "GET", f"/datasets/{dataset}")
        assert gone.status_code in (httpx.codes.GONE, httpx.codes.NOT_FOUND), gone.text
        self.deleted.add(dataset)

    def _submit(self, asked: Asked, key: str) -> dict[str, Any]:
        """Submit until it is accepted; where an upload was purged before its job came, upload it again."""
        for uploads in range(5):
            body = self._body(asked)
            if asked.images:
                body["data"] = {"forget": self._upload(asked.tenant, f"{key}-{uploads}")}
            answer = self._ask(asked.tenant, "POST", "/jobs", json=body, headers={"Idempotency-Key": f'"{key}"'})
            if answer.status_code in (httpx.codes.OK, httpx.codes.ACCEPTED):
                found: dict[str, Any] = answer.json()
                return found
            assert asked.images, answer.text
        raise AssertionError(answer.text)

    def _upload(self, tenant: Tenant, key: str) -> str:
        for _ in range(5):
            answer = self._ask(
                tenant,
                "POST",
                "/datasets",
                params={"name": key},
                content=self._archive,
                headers={"Content-Type": "application/octet-stream", "Idempotency-Key": f'"{key}"'},
            )
            if answer.status_code != httpx.codes.CONFLICT:  # it took so long that it was given up
                break
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

    def _ask(self, tenant: Tenant, method: str, path: str, **what: Any) -> httpx.Response:
        """Ask until there is an answer that is not about a passing trouble."""
        what["headers"] = {"Authorization": f"Bearer {tenant.key}"} | what.get("headers", {})
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
