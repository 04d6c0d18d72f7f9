"""What the storm counts can be wrong: each count is tried on a history that keeps the promise and on one that breaks it."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from tests.chaos.fairness import Happening, Turns, turns
from tests.chaos.idleness import Stretches
from tests.chaos.listeners import End, Heard, gaps, hear


def history(*steps: tuple[str, str, str]) -> Turns:
    return turns(Happening(at, tenant, job, f"job.{what}") for at, (tenant, job, what) in enumerate(steps))


def line(large: int) -> list[tuple[str, str, str]]:
    return [("large", f"l{number}", "queued") for number in range(large)]


def run(tenant: str, job: str) -> list[tuple[str, str, str]]:
    return [(tenant, job, "started"), (tenant, job, "succeeded")]


def test_first_come_first_served_is_unfair() -> None:
    all_large = [step for number in range(9) for step in run("large", f"l{number}")]
    found = history(*line(9), ("small", "s", "queued"), *all_large, *run("small", "s"))

    assert found.most == 9
    assert [found.violations(workers) for workers in (3, 6, 7)] == [1, 1, 0]


def test_tenants_that_take_turns_pass_each_other_over_once() -> None:
    found = history(
        *line(3),
        *run("large", "l0"),
        ("small", "s0", "queued"),
        ("small", "s1", "queued"),
        *run("small", "s0"),
        *run("large", "l1"),
        *run("small", "s1"),
        *run("large", "l2"),
    )

    assert found.most == 1
    assert found.violations(workers=1) == 0


def test_a_tenant_that_never_gets_its_turn_counts() -> None:
    all_large = [step for number in range(4) for step in run("large", f"l{number}")]

    assert history(*line(4), ("small", "s", "queued"), *all_large).violations(workers=1) == 1


@pytest.mark.parametrize(
    ("before", "after"), [(("small", "s1", "started"), ("small", "s1", "failed")), (("small", "s0", "held"), None)]
)
def test_a_tenant_that_runs_a_job_or_holds_all_is_not_passed_over(
    before: tuple[str, str, str], after: tuple[str, str, str] | None
) -> None:
    all_large = [step for number in range(9) for step in run("large", f"l{number}")]
    found = history(*line(9), ("small", "s0", "queued"), before, *all_large, *([after] if after else []))

    assert found.most <= 1  # the small one itself went before the large one


def test_a_job_whose_attempt_was_lost_waits_again() -> None:
    all_large = [step for number in range(9) for step in run("large", f"l{number}")]
    lost = [("small", "s", "queued"), ("small", "s", "started"), ("small", "s", "requeued")]

    assert history(*line(9), *lost, *all_large).most == 9


def test_a_job_beside_an_idle_worker_is_noticed_after_ten_seconds() -> None:
    stretches = Stretches()
    for _ in range(11):
        stretches.note(1.0, {1, 2}, {"a"})
    assert stretches.forgotten == set()
    stretches.note(1.0, {2}, {"a", "b"})

    assert stretches.forgotten == {"a"}
    assert stretches.longest == 11.0


def test_neither_a_busy_worker_nor_a_blind_watch_forgets_a_job() -> None:
    stretches = Stretches()
    for number in range(40):
        stretches.note(1.0, {1 + number // 10 % 2}, {"a"})  # another one is idle every ten seconds
    for _ in range(9):
        stretches.note(60.0, {3}, {"b"})  # held up itself
    stretches.forget()
    stretches.note(1.0, {3}, {"b"})

    assert stretches.forgotten == set()


@pytest.mark.parametrize(
    "heard", [None, [], [(1, "a")], [(2, "b"), (1, "a")], [(1, "a"), (1, "a"), (2, "b")], [(1, "a"), (2, "c")]]
)
def test_what_was_missed_doubled_or_swapped_is_a_gap(heard: Heard | None) -> None:
    assert gaps(heard, [(1, "a"), (2, "b")])
    assert not gaps([(1, "a"), (2, "b")], [(1, "a"), (2, "b")])


class Breaking(BaseHTTPRequestHandler):
    """An event stream that breaks off amid its second message, goes on after `Last-Event-ID`, and then is over."""

    def do_GET(self) -> None:
        last = int(self.headers.get("Last-Event-ID", "0"))
        if "good" not in self.headers["Authorization"]:
            self.send_error(401)
        elif last == 2:
            self.send_response(204)
            self.end_headers()
        else:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            whole = "".join(
                f'id: {seq}\r\nevent: e\r\ndata: {{"seq": {seq}, "type": "e"}}\r\n\r\n' for seq in (1, 2) if seq > last
            )
            self.wfile.write(whole[: -3 if last == 0 else None].encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def breaking() -> Iterator[httpx.Client]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Breaking)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with httpx.Client(base_url=f"http://127.0.0.1:{server.server_port}") as client:
        yield client
    server.shutdown()
    server.server_close()


def test_a_stream_is_taken_up_after_the_last_whole_message(breaking: httpx.Client) -> None:
    heard: Heard = []

    ends = [hear(breaking, "job", "good", heard) for _ in range(3)]

    assert ends == [End.BROKEN, End.BROKEN, End.TOLD]
    assert heard == [(1, "e"), (2, "e")]
    assert hear(breaking, "job", "revoked", heard) is End.KEY
