"""A real S3 server on this machine: JuiceFS on SQLite and local files."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import httpx
import obstore
from obstore.store import S3Store

from shared.ports.embedded_servers import free_port

JUICEFS = str(Path(sys.executable).parent / "juicefs")
BUCKET = "efface"
CREDENTIALS = {"MINIO_ROOT_USER": "tester", "MINIO_ROOT_PASSWORD": "not-a-secret"}
START_SECONDS = 60.0


@contextmanager
def object_server(folder: Path) -> Iterator[str]:
    """Run the server with one empty bucket `efface`, on data in `folder`, and give its URL."""
    metadata, address = f"sqlite3://{folder}/meta.db", f"127.0.0.1:{free_port()}"
    volume = [JUICEFS, "format", metadata, "test", "--bucket", str(folder / "data"), "--trash-days", "0"]
    subprocess.run(volume, check=True, capture_output=True)
    gateway = [JUICEFS, "gateway", metadata, address, "--multi-buckets", "--no-banner", "--no-usage-report"]
    gateway += ["--hide-dir-object", "--metrics", f"127.0.0.1:{free_port()}"]
    gateway += ["--log", str(folder / "gateway.log"), "--cache-dir", str(folder / "cache")]
    with (folder / "output.log").open("wb") as output:
        server = subprocess.Popen(gateway, env=os.environ | CREDENTIALS, stdout=output, stderr=output)
    try:
        _wait_until_ready(f"http://{address}/minio/health/live", server)
        _make_bucket(f"http://{address}")
        yield f"http://{address}"
    finally:
        server.terminate()
        server.wait(30)


def variables(endpoint: str) -> Mapping[str, str]:
    """Return the variables with which a deployment opens the server."""
    return {
        "AWS_ENDPOINT": endpoint,
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": CREDENTIALS["MINIO_ROOT_USER"],
        "AWS_SECRET_ACCESS_KEY": CREDENTIALS["MINIO_ROOT_PASSWORD"],
    }


def _wait_until_ready(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            if httpx.get(url).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise AssertionError("the S3 server does not start")


def _make_bucket(endpoint: str) -> None:
    """Creating a bucket is a PUT of the bucket itself: of the empty key."""
    store = S3Store(
        BUCKET,
        endpoint=endpoint,
        access_key_id=CREDENTIALS["MINIO_ROOT_USER"],
        secret_access_key=CREDENTIALS["MINIO_ROOT_PASSWORD"],
        region="us-east-1",
        client_options={"allow_http": True},
    )
    httpx.put(obstore.sign(store, "PUT", "", timedelta(seconds=60))).raise_for_status()
