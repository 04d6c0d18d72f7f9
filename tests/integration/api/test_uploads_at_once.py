"""Many uploads at once, slow ones, ones that leave and ones that are too much: nobody else notices."""

import io
import socket
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from PIL import Image
from sqlalchemy import text

from shared.ports.object_storage import Storage
from shared.settings import MIB

PATIENCE_SECONDS = 60.0


@pytest.fixture(autouse=True)
def temporary_folder(tmp_path, monkeypatch):
    """One of the test's own."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))


def left_over():
    return list(Path(tempfile.gettempdir()).glob("efface-upload-*"))


def wait_until(condition, what):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def heavy(images=1):
    """An archive of images of 36 MP: small to send, much to do."""
    image, archive = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (6000, 6000), (1, 2, 3)).save(image, "PNG")
    with zipfile.ZipFile(archive, "w") as file:
        for number in range(images):
            file.writestr(f"horse/{number}.png", image.getvalue())
    return archive.getvalue()


@pytest.fixture
def client(serve, settings, make_key):
    """Opens connections to a server with these settings."""
    opened = []

    def open_(tenant="alice", url=None, **changes):
        url = url or serve(settings.model_copy(update=changes))
        headers = {"Authorization": f"Bearer {make_key(tenant)}"}
        opened.append(httpx.Client(base_url=url, headers=headers, timeout=PATIENCE_SECONDS))
        return opened[-1]

    yield open_
    for one in opened:
        one.close()


@contextmanager
def begun(client, body=b"x" * 1000, length=1_000_000) -> Iterator[socket.socket]:
    """An upload that has sent `body` and no more."""
    with socket.create_connection((client.base_url.host, client.base_url.port)) as connection:
        key = client.headers["Authorization"]
        head = f"POST /datasets?name=x HTTP/1.1\r\nHost: x\r\nAuthorization: {key}\r\nContent-Length: {length}\r\n\r\n"
        connection.sendall(head.encode() + body)
        yield connection


def test_a_tenant_waits_for_its_turn_and_is_told_when_to_come_again(client, archive):
    alice = client(max_tenant_uploads=1, upload_wait_seconds=0)
    bob = client("bob", url=alice.base_url)
    with begun(alice):
        wait_until(left_over, "nothing is received")
        refused = alice.post("/datasets?name=x", content=archive.read_bytes())
        assert refused.status_code == 429
        assert refused.json()["violated-policies"] == ["uploads"]
        assert int(refused.headers["Retry-After"]) > 0
        assert alice.post("/models?name=x", content=b"x").status_code == 429
        assert alice.get("/datasets").status_code == 200
        assert bob.post("/datasets?name=x", content=archive.read_bytes()).status_code == 201
    wait_until(lambda: not left_over(), "the broken upload is still there")
    assert alice.post("/datasets?name=x", content=archive.read_bytes()).status_code == 201


def test_uploads_beyond_the_turns_wait_and_are_taken(client, archive):
    alice = client(max_tenant_uploads=2)
    content = archive.read_bytes()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: alice.post(f"/datasets?name={n}", content=content).status_code, range(8)))
    assert answers == [201] * 8
    assert left_over() == []


def test_one_that_stands_still_is_ended(client, storage):
    alice = client(upload_idle_seconds=0.2)
    with begun(alice) as connection:
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 408")
    assert b'"too_slow"' in answer and b"EFFACE_UPLOAD_IDLE_SECONDS" in answer
    assert left_over() == []
    assert storage.list("tenants") == []


def test_a_client_that_leaves_ends_the_work(client, inspectors, logs, storage):
    alice = client()
    body = heavy(60)
    with begun(alice, body, len(body)):
        wait_until(lambda: forks(inspectors), "it is not looked at")
        working = forks(inspectors)
    wait_until(
        lambda: not any(one.is_running() and one.status() != "zombie" for one in working), "it is looked at still"
    )
    wait_until(lambda: not left_over(), "it is still there")
    wait_until(lambda: [line for line in logs if line["event"] == "http.request"], "it has not ended")
    assert [line["status"] for line in logs if line["event"] == "http.request"] == [499]
    assert storage.list("tenants") == []


def forks(inspectors):
    return [fork for one in inspectors._all if one.lives for fork in psutil.Process(one._process.pid).children()]


def test_an_upload_that_takes_too_much_is_the_clients_error(client, storage):
    alice = client(max_inspection_bytes=256 * MIB)
    answer = alice.post("/datasets?name=x", content=heavy())
    assert answer.status_code == 422, answer.text
    (error,) = answer.json()["errors"]
    assert error["pointer"] == "/file"
    assert "more than 256 MiB of memory" in error["detail"]
    assert storage.list("tenants") == []


def test_temporary_files_have_a_bound_together(client):
    alice = client(max_scratch_bytes=2000)
    answers = [
        alice.post("/datasets?name=x", content=b"x" * 2001),
        alice.post("/datasets?name=x", content=(b"x" * 100 for _ in range(21))),
    ]
    assert [answer.status_code for answer in answers] == [503, 503]
    assert all("no room" in answer.json()["detail"] and answer.headers["Retry-After"] for answer in answers)
    with begun(alice, length=1500):
        wait_until(left_over, "nothing is received")
        assert alice.post("/datasets?name=x", content=b"x" * 501).status_code == 503
    wait_until(lambda: not left_over(), "the broken upload is still there")
    assert alice.post("/datasets?name=x", content=b"x" * 501).status_code == 422


def test_a_full_quota_is_told_before_a_byte_is_received(client, archive):
    content = archive.read_bytes()
    alice = client(max_tenant_bytes=len(content))
    assert alice.post("/datasets?name=x", content=content).status_code == 201
    with begun(alice, b"", 1000) as connection:  # which waits for an answer before it sends
        assert connection.makefile("rb").readline().startswith(b"HTTP/1.1 403")
    for answer in (
        alice.post("/datasets?name=x", content=content),
        alice.post("/datasets?name=x", content=(content[i : i + 100] for i in range(0, len(content), 100))),
        alice.post("/datasets?name=x", files={"file": content}),
    ):
        assert answer.status_code == 403, answer.text
        problem = answer.json()
        assert (problem["code"], problem["violated-policies"]) == ("storage_quota_exceeded", ["stored-bytes"])
        assert (problem["used"], problem["allowed"]) == (len(content), len(content))


def test_live_answers_while_every_thread_waits_for_the_database(client, database, settings):
    alice = client()
    with database.engine.connect() as holder, ThreadPoolExecutor(50) as pool:
        holder.execute(text("LOCK TABLE access_tokens, api_keys IN ACCESS EXCLUSIVE MODE"))
        waiting = [
            pool.submit(httpx.get, f"{alice.base_url}/jobs", headers=alice.headers, timeout=60) for _ in range(50)
        ]
        query = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")

        def stuck():
            with database.look() as other:
                return other.execute(query).scalar_one()

        wait_until(lambda: stuck() >= settings.database_pool_size, "nobody waits")
        assert httpx.get(f"{alice.base_url}/health/live", timeout=60).status_code == 200
        assert not any(request.done() for request in waiting)
        holder.rollback()
        assert {request.result().status_code for request in waiting} <= {200, 503}


def test_ready_asks_once_for_many_and_writes_nothing(client, storage, monkeypatch):
    asked = []
    ping = Storage.ping

    def counted(self):
        asked.append(threading.get_ident())
        ping(self)

    monkeypatch.setattr(Storage, "ping", counted)
    url = f"{client().base_url}/health/ready"
    start = time.monotonic()
    with ThreadPoolExecutor(10) as pool:
        assert {answer.status_code for answer in pool.map(lambda _: httpx.get(url, timeout=60), range(40))} == {200}
    assert len(asked) <= 2 + (time.monotonic() - start) / 2
    assert storage.list("") == []


def test_an_archive_on_the_server_is_read_before_a_connection_is_held(serve, settings, make_key, request_body, archive):
    """`no_connection_waits_for_the_storage` would tell, for the lock of the key is held first."""
    url = serve(settings.model_copy(update={"path_roots": [archive.parent]}))
    headers = {"Authorization": f"Bearer {make_key()}", "Idempotency-Key": "k"}
    body = request_body | {"data": {"evaluation": [{"name": "farm", "dataset": str(archive)}]}}

    assert httpx.post(f"{url}/jobs", json=body, headers=headers, timeout=60).status_code == 202
    (archive.parent / "broken.zip").write_bytes(b"x")
    body["data"] = {"evaluation": [{"name": "farm", "dataset": str(archive.parent / "broken.zip")}]}
    refused = httpx.post(f"{url}/jobs", json=body, headers=headers | {"Idempotency-Key": "l"}, timeout=60)
    assert [error["pointer"] for error in refused.json()["errors"]] == ["/data/evaluation/0/dataset"]


def test_a_full_quota_does_not_stand_before_an_answer_that_was_given(client, archive):
    content, key = archive.read_bytes(), {"Idempotency-Key": "k"}
    alice = client(max_tenant_datasets=1)
    first, again = (alice.post("/datasets?name=x", content=content, headers=key) for _ in range(2))

    assert (first.status_code, again.content) == (201, first.content)
    assert again.headers["Idempotency-Replayed"] == "true"
    refused = alice.post("/datasets?name=x", content=content, headers={"Idempotency-Key": "other"})
    assert (refused.status_code, refused.json()["violated-policies"]) == (403, ["datasets"])
