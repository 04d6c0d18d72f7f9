"""Sends every hostile set of images through the check of uploads, in a process of its own each, and
counts what it costs.

python -m benchmarks.hostile [--large]

Counted are: sets, those that ended otherwise than refused with the sentence that is right
(crashes, sets accepted), files left behind, the highest memory and CPU time of a process beyond
what an empty one takes. With --large, the limits are those of a server as it is installed, and a
few sets are as large as makes sense to whoever would bring one down."""

import argparse
import gzip
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from shared.errors import InvalidRequest
from shared.files.image_archives import ArchiveLimits, inspect_archive
from shared.settings import Settings
from tests.support.hostile import LIMITS, Hostile
from tests.support.hostile.archives import PNG, shard, tarred, zipped
from tests.support.hostile.images import encoded, gif_comment, junk_in_jpeg, scans, tile_bomb
from tests.support.hostile.sets import ALL

OF_THE_DOOR = frozenset({"no byte", "over the limit"})
"""Refused before anybody looks at what an upload is."""
ENDED_AS_IT_SHOULD, ACCEPTED, CRASHED = 0, 1, 2


class Cost(NamedTuple):
    """What one set did to the process that looked at it."""

    end: int
    memory_mib: float
    cpu_seconds: float
    left: int


def large() -> dict[str, Callable[[], bytes]]:
    """Return the sets that cost most for their size, at full size."""
    return {
        "TIFF with a tile of a gigabyte": lambda: zipped([("horse/1.tif", tile_bomb())]),
        "JPEG of 20,000 scans, 40 MP": lambda: zipped(
            [("horse/1.jpg", scans(20_000, (8000, 5000)))]
        ),
        "label of 16 MiB": shard(b"[" + b"[]," * 5_500_000 + b"[]]", "json"),
        "label of 16 MiB, packed": lambda: gzip.compress(
            shard(b"[" + b"[]," * 5_500_000 + b"[]]", "json")(), 1
        ),
        "tar.gz of 200,000 folders": lambda: gzip.compress(
            tarred([(f"{i}/", b"") for i in range(200_000)], type=b"5")
        ),
        "zip of 300,000 folders": lambda: zipped([(f"{i}/", b"") for i in range(300_000)]),
        "GIF with a comment in pieces": lambda: zipped([("horse/1.gif", gif_comment(5_000_000))]),
        "JPEG with junk": lambda: zipped([("horse/1.jpg", junk_in_jpeg(100_000_000))]),
        "zeros after a tar, 2 GB": lambda: (
            gzip.compress(tarred([("horse/1.png", PNG)])) + gzip.compress(bytes(2**31 - 1), 1)
        ),
        "16-bit image of 40 MP": lambda: zipped([("horse/1.png", deep())]),
    }


def deep() -> bytes:
    """Return an image of 16 bits and as many pixels as are allowed: sound, and accepted."""
    from PIL import Image

    return encoded("PNG", Image.new("I;16", (8000, 5000), 77), compress_level=1)


def measured(path: Path, hostile: Hostile | None, limits: ArchiveLimits) -> Cost:
    """Look at a set in a process of its own."""
    folder = Path(tempfile.mkdtemp(dir=path.parent))
    child = os.fork()
    if child == 0:
        tempfile.tempdir = str(folder)
        os._exit(looked_at(path, hostile, limits))
    _, status, usage = os.wait4(child, 0)
    left = sum(1 for _ in folder.rglob("*"))
    return Cost(
        os.waitstatus_to_exitcode(status),
        usage.ru_maxrss / 1024,
        usage.ru_utime + usage.ru_stime,
        left,
    )


def looked_at(path: Path, hostile: Hostile | None, limits: ArchiveLimits) -> int:
    """Return how the check of a set ends."""
    try:
        inspect_archive(path, limits)
    except InvalidRequest as error:
        said = "; ".join(one.detail for one in error.errors)
        if hostile is None or hostile.says in said:
            return ENDED_AS_IT_SHOULD
        print(f"    {hostile.says!r} is not said: {said[:200]}")
    except BaseException as error:  # the point is to see it
        print(f"    {type(error).__name__}: {error}")
    else:
        return ACCEPTED
    sys.stdout.flush()
    return CRASHED


def main() -> None:
    """Look at every set, and print the counts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--large",
        action="store_true",
        help="the costliest sets at full size, with the limits as installed",
    )
    asked = parser.parse_args()
    limits = ArchiveLimits.of(Settings() if asked.large else Settings.model_validate(LIMITS))
    cases: dict[str, tuple[Callable[[], bytes], Hostile | None]] = {}
    if asked.large:
        cases |= {name: (build, None) for name, build in large().items()}
    else:
        cases |= {
            name: (hostile.build, hostile)
            for name, hostile in ALL.items()
            if name not in OF_THE_DOOR
        }
    costs: dict[str, Cost] = {}
    with tempfile.TemporaryDirectory(prefix="efface-hostile-") as folder:
        path = Path(folder) / "upload"
        path.write_bytes(zipped([("horse/1.png", PNG)]))
        sound = measured(path, None, limits)
        for name, (build, hostile) in cases.items():
            write(path, build)
            started = time.perf_counter()
            costs[name] = cost = measured(path, hostile, limits)
            if asked.large or cost.end or cost.left:
                end = (
                    ("refused", "ACCEPTED", "WRONG")[cost.end]
                    if 0 <= cost.end <= CRASHED
                    else f"KILLED {cost.end}"
                )
                print(
                    f"{name:<40} {path.stat().st_size:>12,} bytes  "
                    f"+{cost.memory_mib - sound.memory_mib:>7.1f} MiB  "
                    f"{cost.cpu_seconds:>6.2f} CPU-s  {time.perf_counter() - started:>6.2f} s  "
                    f"{end}"
                )
    right = (ENDED_AS_IT_SHOULD, ACCEPTED) if asked.large else (ENDED_AS_IT_SHOULD,)
    wrong = sum(cost.end not in right for cost in costs.values())
    memory = max(costs.items(), key=lambda item: item[1].memory_mib)
    cpu = max(costs.items(), key=lambda item: item[1].cpu_seconds)
    print(
        f"{len(costs)} hostile sets, {wrong} ended wrongly, "
        f"{sum(cost.left for cost in costs.values())} files left behind; "
        f"at most +{memory[1].memory_mib - sound.memory_mib:.1f} MiB ({memory[0]}) "
        f"and {cpu[1].cpu_seconds:.2f} CPU-s ({cpu[0]}); a sound set takes {sound.memory_mib:.1f} "
        "MiB"
    )
    sys.exit(1 if wrong else 0)


def write(path: Path, build: Callable[[], bytes]) -> None:
    """Write a set, made in a process of its own: what making it took is no part of what looking
    at it takes.
    """
    child = os.fork()
    if child == 0:
        path.write_bytes(build())
        os._exit(0)
    if os.waitstatus_to_exitcode(os.wait4(child, 0)[1]) != 0:
        raise RuntimeError(f"{path} could not be made")


if __name__ == "__main__":
    main()
