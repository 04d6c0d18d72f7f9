"""A bucket that keeps versions keeps nothing of what was purged. The server is moto's: the JuiceFS one has no versions."""

import base64
import os
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer
from pydantic import SecretStr

from services.catalog import datasets
from services.deletion import delete_all
from shared.crypto.archive_encryption import Sealer
from shared.errors import Unavailable
from shared.ports.object_storage import Storage
from shared.ports.object_versions import delete_versions
from shared.settings import Settings
from tests.support import requests

BUCKET = "efface"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    yield f"http://{host}:{port}"
    moto.stop()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch):
    """A bucket with versions, opened as a deployment opens it."""
    for name, value in {
        "AWS_ENDPOINT": server,
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "tester",
        "AWS_SECRET_ACCESS_KEY": "not-a-secret",
    }.items():
        monkeypatch.setenv(name, value)
    made = boto3.resource("s3", endpoint_url=server, region_name="us-east-1").Bucket(BUCKET)
    made.create()
    made.Versioning().enable()
    yield made
    made.Versioning().suspend()
    made.object_versions.delete()
    made.delete()


def versions(bucket) -> list[str]:
    return sorted(version.object_key for version in bucket.object_versions.all())


@pytest.mark.parametrize("prefix", ["", "/deep/er"])
def test_every_version_goes_and_no_neighbour(bucket, prefix: str) -> None:
    storage = Storage(f"s3://{BUCKET}{prefix}")
    for key in ("jobs/1/a", "jobs/1/a", "jobs/1/2/kept", "jobs/10/b"):
        storage.put(key, b"x")
    storage.delete("jobs/1/a")
    assert len(versions(bucket)) == 5  # two of a and its delete marker
    deleted = delete_all(storage, "jobs/1", kept="jobs/1/2")
    folder = f"{prefix}/".lstrip("/")
    assert versions(bucket) == [f"{folder}jobs/1/2/kept", f"{folder}jobs/10/b"]
    assert deleted.versions == "deleted"


def test_one_object_is_a_prefix_too(bucket) -> None:
    storage = Storage(f"s3://{BUCKET}")
    storage.put("datasets/ds_1", b"x"), storage.put("datasets/ds_10", b"x")
    deleted = delete_all(storage, "datasets/ds_1")
    assert ([o.key for o in deleted.objects], versions(bucket)) == (["datasets/ds_1"], ["datasets/ds_10"])


def test_a_sealed_archive_is_read_from_s3_and_leaves_no_version(bucket, tmp_path: Path) -> None:
    storage = Storage(f"s3://{BUCKET}/deep")
    settings = Settings(_env_file=None, master_key=SecretStr(base64.b64encode(os.urandom(32)).decode()))
    archive = requests.archive(tmp_path / "up.zip", "horse")
    stored = datasets.store(storage, "t", archive, settings)
    opened = Sealer.of(settings).unseal(storage.stream(stored.key), stored.data_key, stored.dataset_id)
    assert b"".join(opened) == archive.read_bytes()
    assert stored.sealed_sha256 == requests.sha256(storage.get(stored.key))
    assert delete_all(storage, stored.key).versions == "deleted"
    assert versions(bucket) == []


def test_a_bucket_without_versions_has_none(bucket, server: str) -> None:
    plain = boto3.resource("s3", endpoint_url=server, region_name="us-east-1").Bucket("plain")
    plain.create()
    assert delete_versions("s3://plain", "jobs/1") == "none"
    plain.delete()


def test_what_cannot_be_asked_is_unknown(bucket) -> None:
    assert delete_versions("s3://no-such-bucket", "jobs/1") == "unknown"
    assert delete_versions("az://container", "jobs/1") == "unknown"


def test_a_version_that_stays_is_an_error(bucket, server: str) -> None:
    client = boto3.client("s3", endpoint_url=server, region_name="us-east-1")
    client.create_bucket(Bucket="locked", ObjectLockEnabledForBucket=True)
    client.put_object(Bucket="locked", Key="jobs/1/a", Body=b"x", ObjectLockLegalHoldStatus="ON")
    with pytest.raises(Unavailable, match="versions of 'jobs/1'"):
        delete_versions("s3://locked", "jobs/1")
