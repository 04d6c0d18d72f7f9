"""Claim: many uploads at once keep nobody else waiting, and a gateway reads what it is sent no more
often than it must.

    python -m benchmarks.uploads [--uploads 44] [--megapixels 40] [--mib 64]

Starts Postgres, Redis and the gateway. First it sends `--uploads` archives at once, each a zip
with one image of `--megapixels`, and asks for `/health/live` all the while, and for some seconds
before it (`quiet`). Then it sends one archive and one checkpoint of `--mib` MiB each, under an
Idempotency-Key, as a body and as a form. It prints one JSON line for each: how long
`/health/live` took, the memory of the gateway with all its children (resident, summed: pages
that they share are counted for each), and how many bytes they read from and wrote to files for
each byte that was sent (`rchar` and `wchar` of /proc/PID/io, which what sockets carry is no part
of)."""

import argparse
import base64
import hashlib
import io
import json
import os
import platform
import struct
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import httpx
import numpy as np
import psutil
from PIL import Image

from benchmarks.service import Service, gateway_with_bare_endpoint

MIB = 1024 * 1024
LOOK_SECONDS = 0.02
QUIET_SECONDS = 5.0
"""How long `/health/live` is asked for before anything is sent: what the machine is like by
itself.
"""
ANSWER_SECONDS = 1800.0


def archive_of_one(megapixels: int, shade: int) -> bytes:
    """Return a zip with one large image, which packs well."""
    side = int((megapixels * 1e6) ** 0.5)
    picture = Image.new("RGB", (side, side), (shade, 2, 3))
    image, archive = io.BytesIO(), io.BytesIO()
    picture.save(image, "PNG")
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("horse/1.png", image.getvalue())
    return archive.getvalue()


def archive_of_noise(mib: int, seed: int) -> bytes:
    """Return a zip of about `mib` MiB of images that do not pack, a quarter of a MiB each."""
    archive, noise = io.BytesIO(), np.random.default_rng(seed)
    with zipfile.ZipFile(archive, "w") as file:
        for number in range(4 * mib):
            image = io.BytesIO()
            Image.fromarray(noise.integers(0, 256, (296, 296, 3), np.uint8)).save(
                image, "PNG", compress_level=0
            )
            file.writestr(f"horse/{number}.png", image.getvalue())
    return archive.getvalue()


def checkpoint(mib: int, seed: int) -> bytes:
    """Return a safetensors file of `mib` MiB."""
    size = mib * MIB
    header = json.dumps(
        {"w": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}}
    ).encode()
    return struct.pack("<Q", len(header)) + header + np.random.default_rng(seed).bytes(size)


def gateway_of(service: Service) -> psutil.Process:
    """Return the gateway's process: whoever listens on its port."""
    port = httpx.URL(service.url).port
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if any(
                c.status == "LISTEN" and c.laddr.port == port
                for c in process.net_connections("tcp")
            ):
                return process
    raise SystemExit("no process listens on the gateway's port")


def family(gateway: psutil.Process) -> list[psutil.Process]:
    """Return the gateway and everything below it."""
    return [gateway, *gateway.children(recursive=True)]


class Watch:
    """Looks at the gateway all the time: its memory, and how long it takes to say that it lives."""

    def __init__(self, service: Service, gateway: psutil.Process) -> None:
        self._url, self._gateway = f"{service.url}/health/live", gateway
        self.milliseconds: list[float] = []
        self.peak_bytes = 0
        self._done = threading.Event()

    def ask(self) -> None:
        """Ask one request after the other."""
        with httpx.Client(timeout=ANSWER_SECONDS) as client:
            while not self._done.is_set():
                start = time.perf_counter()
                client.get(self._url).raise_for_status()
                self.milliseconds.append(1000 * (time.perf_counter() - start))
                self._done.wait(LOOK_SECONDS)

    def weigh(self) -> None:
        """Add up the memory again and again."""
        while not self._done.is_set():
            total = 0
            for process in family(self._gateway):
                with suppress(psutil.Error):
                    total += process.memory_info().rss
            self.peak_bytes = max(self.peak_bytes, total)
            self._done.wait(LOOK_SECONDS)

    @contextmanager
    def looking(self) -> Iterator["Watch"]:
        """Look until the block ends."""
        threads = [threading.Thread(target=look, daemon=True) for look in (self.ask, self.weigh)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._done.set()
            for thread in threads:
                thread.join(ANSWER_SECONDS)


def many(service: Service, gateway: psutil.Process, count: int, megapixels: int) -> None:
    """Send `count` archives at once."""
    bodies = [archive_of_one(megapixels, shade % 256) for shade in range(count)]
    idle = sum(process.memory_info().rss for process in family(gateway))
    headers = {"Authorization": f"Bearer {service.key}"}

    def send(body: bytes) -> int:
        url = f"{service.url}/datasets?name=one"
        return httpx.post(url, content=body, headers=headers, timeout=ANSWER_SECONDS).status_code

    with Watch(service, gateway).looking() as before:
        time.sleep(QUIET_SECONDS)
    start = time.perf_counter()
    with Watch(service, gateway).looking() as watch, ThreadPoolExecutor(count) as pool:
        statuses = Counter(pool.map(send, bodies))
    show(
        "many uploads at once",
        uploads=count,
        bytes_each=len(bodies[0]),
        statuses=dict(sorted(statuses.items())),
        seconds=round(time.perf_counter() - start, 1),
        quiet_p50_ms=round(float(np.percentile(before.milliseconds, 50)), 1),
        quiet_p99_ms=round(float(np.percentile(before.milliseconds, 99)), 1),
        live_requests=len(watch.milliseconds),
        live_p50_ms=round(float(np.percentile(watch.milliseconds, 50)), 1),
        live_p99_ms=round(float(np.percentile(watch.milliseconds, 99)), 1),
        live_max_ms=round(max(watch.milliseconds), 1),
        idle_mib=round(idle / MIB),
        peak_mib=round(watch.peak_bytes / MIB),
    )


def moved(gateway: psutil.Process) -> tuple[int, int]:
    """Return the bytes that the gateway and its children have read and written, their ended
    forks included.
    """
    counters = [process.io_counters() for process in family(gateway)]
    return sum(c.read_chars for c in counters), sum(c.write_chars for c in counters)


def one(service: Service, gateway: psutil.Process, path: str, body: bytes, *, form: bool) -> None:
    """Send one file and print how often it was read and written."""
    headers = {
        "Authorization": f"Bearer {service.key}",
        "Idempotency-Key": hashlib.sha256(body).hexdigest(),
    }
    params = {"name": "one", "filename": "one.safetensors", "architecture": "ViT-B-32"}
    read, written = moved(gateway)
    with httpx.Client(
        base_url=service.url, headers=headers, params=params, timeout=ANSWER_SECONDS
    ) as client:
        sent = {"files": {"file": ("one.safetensors", body)}} if form else {"content": body}
        answer = client.post(path, **sent)
    answer.raise_for_status()
    read, written = (
        now - before for now, before in zip(moved(gateway), (read, written), strict=True)
    )
    show(
        f"one upload to {path} as a {'form' if form else 'body'}",
        bytes=len(body),
        read_per_byte=round(read / len(body), 2),
        written_per_byte=round(written / len(body), 2),
    )


def show(what: str, **figures: object) -> None:
    """Print one line."""
    print(json.dumps({"what": what, **figures}), flush=True)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--uploads", type=int, default=44)
    parser.add_argument("--megapixels", type=int, default=40)
    parser.add_argument("--mib", type=int, default=64)
    options = parser.parse_args()
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        flush=True,
    )
    os.environ.setdefault("EFFACE_MASTER_KEY", base64.b64encode(os.urandom(32)).decode())
    with gateway_with_bare_endpoint() as (service, _):
        gateway = gateway_of(service)
        many(service, gateway, options.uploads, options.megapixels)
        for path, make in (("/datasets", archive_of_noise), ("/models", checkpoint)):
            for seed, form in enumerate((False, True)):
                one(service, gateway, path, make(options.mib, seed), form=form)


if __name__ == "__main__":
    main()
