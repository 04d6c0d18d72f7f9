"""The storage port keeps one contract on a folder and on a real S3 server."""

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from shared.errors import Unavailable
from shared.ports.embedded_servers import free_port
from shared.ports.object_storage import CHUNK_BYTES, ObjectMissing, Storage, StoredObject
from tests.support.object_server import BUCKET, object_server, variables


@pytest.fixture(scope="module")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real S3 server with one empty bucket."""
    with object_server(tmp_path_factory.mktemp("s3")) as endpoint:
        yield endpoint


@pytest.fixture
def s3(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Storage:
    """The S3 server below a prefix of the test's own, opened as a deployment opens it: with the usual variables."""
    for name, value in variables(s3_endpoint).items():
        monkeypatch.setenv(name, value)
    return Storage(f"s3://{BUCKET}/{request.node.originalname}")


@pytest.fixture(params=["file", "s3"])
def any_storage(request: pytest.FixtureRequest) -> Storage:
    """Each kind of storage in turn."""
    found: Storage = request.getfixturevalue("storage" if request.param == "file" else "s3")
    return found


def test_what_is_put_is_got(any_storage: Storage, tmp_path: Path) -> None:
    file = tmp_path / "weights"
    content = os.urandom(2 * CHUNK_BYTES + 17)  # more than one part of a multipart upload
    file.write_bytes(content)
    assert any_storage.put("a/bytes", b"short") == 5
    assert any_storage.put("a/file", file) == len(content)
    assert any_storage.put("a/chunks", iter([b"one", b"two"])) == 6
    assert any_storage.get("a/bytes") == b"short"
    assert any_storage.get("a/chunks") == b"onetwo"
    assert b"".join(any_storage.stream("a/file")) == content
    assert any_storage.download("a/file", tmp_path / "new" / "copy").read_bytes() == content


def test_put_replaces(any_storage: Storage) -> None:
    any_storage.put("a", b"old and longer")
    any_storage.put("a", b"new")
    assert any_storage.get("a") == b"new"


@pytest.mark.parametrize(("start", "end"), [(0, 4), (3, 7), (6, None), (0, None)])
def test_a_range_is_streamed(any_storage: Storage, start: int, end: int | None) -> None:
    any_storage.put("digits", b"0123456789")
    assert b"".join(any_storage.stream("digits", start, end)) == b"0123456789"[start:end]


def test_a_list_holds_whole_path_parts_in_order(any_storage: Storage) -> None:
    for key in ("jobs/1/b", "jobs/1/a", "jobs/10/c", "models/d"):
        any_storage.put(key, key.encode())
    assert any_storage.list("jobs/1") == [StoredObject("jobs/1/a", 8), StoredObject("jobs/1/b", 8)]
    assert any_storage.list("nothing") == []


def test_delete_takes_an_object_or_a_prefix_and_no_neighbour(any_storage: Storage) -> None:
    for key in ("jobs/1/a", "jobs/1/b", "jobs/10/c"):
        any_storage.put(key, b"x")
    assert any_storage.delete("jobs/1") == 2
    assert any_storage.delete("jobs/10/c") == 1
    assert any_storage.delete("jobs/10/c") == 0
    assert [o for o in any_storage.list("jobs") if o.size] == []  # JuiceFS shows its empty folders, with size 0


def test_a_missing_object_is_named(any_storage: Storage, tmp_path: Path) -> None:
    for read in (any_storage.get, any_storage.size, lambda key: list(any_storage.stream(key))):
        with pytest.raises(ObjectMissing, match="not/there"):
            read("not/there")
    assert any_storage.size(any_storage.put("there", b"123") and "there") == 3


def test_ping_leaves_nothing(any_storage: Storage) -> None:
    any_storage.ping()
    assert any_storage.list("health") == []


def test_a_signed_url_gives_the_object_and_nothing_else(s3: Storage) -> None:
    s3.put("model/weights", b"0123456789")
    url = s3.sign("model/weights", 60)
    assert url is not None
    assert httpx.get(url).content == b"0123456789"
    part = httpx.get(url, headers={"Range": "bytes=2-4"})
    assert (part.status_code, part.content) == (httpx.codes.PARTIAL_CONTENT, b"234")
    assert httpx.get(url.split("?")[0]).status_code == httpx.codes.FORBIDDEN
    assert httpx.put(url, content=b"other").status_code == httpx.codes.FORBIDDEN
    assert s3.get("model/weights") == b"0123456789"


def test_signed_urls_lead_to_the_public_endpoint(s3: Storage, s3_endpoint: str) -> None:
    public = s3_endpoint.replace("127.0.0.1", "localhost")
    s3.put("a", b"public")
    url = Storage(s3.url, public_endpoint=public).sign("a", 60)
    assert url is not None
    assert url.startswith(f"{public}/")
    assert httpx.get(url).content == b"public"


def test_a_folder_has_no_urls(storage: Storage) -> None:
    storage.put("a", b"x")
    assert storage.sign("a", 60) is None


def test_a_server_that_is_down_is_unavailable(s3: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(Unavailable):
        Storage(s3.url).ping()
