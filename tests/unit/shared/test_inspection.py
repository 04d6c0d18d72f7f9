"""What strangers sent is read in processes that know nothing and may take no more than they are allowed."""

import io
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from PIL import Image

from shared.errors import InvalidRequest, Unavailable
from shared.files import inspection
from shared.files.image_archives import ArchiveLimits, inspect_archive
from shared.files.inspection import Gone, InspectionLimits, Inspectors, limits_for
from shared.settings import MIB, Settings
from tests.support import requests

LIMITS = ArchiveLimits(images=1000, expanded_bytes=1 << 40, ratio=1 << 20, pixels=40_000_000)
AMPLE = InspectionLimits(memory=1024 * MIB, mapped=MIB, seconds=120, file=MIB)
PATIENCE_SECONDS = 60.0


@pytest.fixture(scope="module")
def inspectors() -> Iterator[Inspectors]:
    found = Inspectors(2)
    yield found
    found.close()


@pytest.fixture(scope="module")
def heavy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small archive of forty images of 36 MP: much to do."""
    image = io.BytesIO()
    Image.new("RGB", (6000, 6000), (1, 2, 3)).save(image, "PNG")
    path = tmp_path_factory.mktemp("heavy") / "heavy.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(40):
            archive.writestr(f"horse/{number}.png", image.getvalue())
    return path


def said(error: pytest.ExceptionInfo[InvalidRequest]) -> str:
    return error.value.errors[0].detail


def processes(inspectors: Inspectors) -> list[psutil.Process]:
    return [psutil.Process(one._process.pid) for one in inspectors._all]


def wait_until(condition, what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def test_the_answer_is_the_one_of_this_process(inspectors, tmp_path):
    path = requests.archive(tmp_path / "a.zip", "horse", "cow", images=2)
    assert inspectors.archive(path, LIMITS, within=AMPLE) == inspect_archive(path, LIMITS)
    assert inspectors.archive(path, LIMITS, within=AMPLE, sha256="ab").sha256 == "ab"


def test_so_are_the_errors(inspectors, tmp_path):
    (tmp_path / "no archive").write_bytes(b"x")
    with pytest.raises(InvalidRequest) as here:
        inspect_archive(tmp_path / "no archive", LIMITS)
    with pytest.raises(InvalidRequest) as there:
        inspectors.archive(tmp_path / "no archive", LIMITS, within=AMPLE)
    assert here.value.errors == there.value.errors


def test_they_know_no_secret_and_have_no_file_open(tmp_path, monkeypatch):
    for name in ("EFFACE_MASTER_KEY", "EFFACE_DATABASE_URL", "AWS_SECRET_ACCESS_KEY", "PGPASSWORD"):
        monkeypatch.setenv(name, "a-secret")
    inspectors = Inspectors(1)
    with (tmp_path / "open").open("w"):
        inspectors.archive(requests.archive(tmp_path / "a.zip", "horse"), LIMITS, within=AMPLE)
        (process,) = processes(inspectors)
        assert not any("a-secret" in value for value in process.environ().values())
        assert not {name for name in process.environ() if name.startswith(("EFFACE", "AWS", "PG"))}
        assert [file.path for file in process.open_files()] == []
        assert process.net_connections() == []
    inspectors.close()
    assert not process.is_running()


def test_too_much_memory_names_the_limit(inspectors, heavy):
    with pytest.raises(InvalidRequest) as error:
        inspectors.archive(heavy, LIMITS, within=replace(AMPLE, memory=256 * MIB))
    assert "more than 256 MiB of memory" in said(error)


def test_too_much_processor_time_names_the_limit(inspectors, heavy):
    with pytest.raises(InvalidRequest) as error:
        inspectors.archive(heavy, LIMITS, within=replace(AMPLE, seconds=1))
    assert "more than 1 s of processor time" in said(error)


def test_too_long_on_the_wall_names_the_limit_and_the_next_order_is_done(inspectors, heavy, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(inspection, "WALL_OVER_CPU", 0)
        with pytest.raises(InvalidRequest) as error:
            inspectors.archive(heavy, LIMITS, within=AMPLE)
    assert "more than 0 s" in said(error)
    path = requests.archive(tmp_path / "a.zip", "horse")
    assert inspectors.archive(path, LIMITS, within=AMPLE).images == 1


def test_a_file_that_is_larger_than_allowed_names_the_limit(inspectors, tmp_path):
    weights = requests.safetensors(tmp_path / "open_clip_model.safetensors", bytes(200_000))
    with tarfile.open(tmp_path / "model.tgz", "w:gz") as archive:
        archive.add(weights, weights.name)
    (tmp_path / "scratch").mkdir()
    order = (tmp_path / "model.tgz", "model.tgz", None, tmp_path / "scratch")
    with pytest.raises(InvalidRequest, match="unpacks to more"):  # before that: a bomb
        inspectors.checkpoint(*order, within=replace(AMPLE, file=1000))
    with tarfile.open(tmp_path / "model.tgz", "w") as archive:
        archive.add(weights, weights.name)
    with pytest.raises(InvalidRequest, match="unpacks to a file of more than 1000 bytes"):
        inspectors.checkpoint(*order, within=replace(AMPLE, file=1000))


def test_an_order_that_crashes_is_refused_and_takes_nobody_along(heavy, tmp_path):
    inspectors = Inspectors(1)
    with ThreadPoolExecutor(1) as pool:
        order = pool.submit(inspectors.archive, heavy, LIMITS, within=AMPLE)
        wait_until(lambda: processes(inspectors) and processes(inspectors)[0].children(), "nothing was begun")
        (process,) = processes(inspectors)
        process.children()[0].send_signal(signal.SIGSEGV)
        with pytest.raises(InvalidRequest, match="SIGSEGV"):
            order.result()
    assert inspectors.archive(requests.archive(tmp_path / "a.zip", "horse"), LIMITS, within=AMPLE).images == 1
    assert processes(inspectors) == [process]
    inspectors.close()


def test_when_nobody_waits_any_more_the_work_ends(heavy):
    inspectors, gone = Inspectors(1), threading.Event()
    with ThreadPoolExecutor(2) as pool:
        orders = [pool.submit(inspectors.archive, heavy, LIMITS, within=AMPLE, gone=gone) for _ in range(2)]
        wait_until(lambda: processes(inspectors) and processes(inspectors)[0].children(), "nothing was begun")
        (process,) = processes(inspectors)
        family = [process, *process.children()]
        gone.set()
        for order in orders:  # the second one was waiting for an inspector
            with pytest.raises(Gone):
                order.result()
    wait_until(lambda: not any(one.is_running() and one.status() != "zombie" for one in family), "they work on")
    inspectors.close()
    with pytest.raises(Unavailable):
        inspectors.archive(heavy, LIMITS, within=AMPLE)


def test_they_end_with_a_parent_that_is_killed(heavy):
    code = f"""
from tests.unit.shared.test_inspection import *
from pathlib import Path
Inspectors(1).archive(Path({str(heavy)!r}), LIMITS, within=AMPLE)
"""
    root = Path(__file__).parents[3]
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=root, env=os.environ | {"PYTHONPATH": str(root)})
    watched = psutil.Process(parent.pid)
    wait_until(lambda: len(watched.children(recursive=True)) == 2, "nothing was begun")
    family = watched.children(recursive=True)
    parent.kill()
    parent.wait()
    wait_until(lambda: not any(one.is_running() and one.status() != "zombie" for one in family), "they work on")


def test_small_files_get_less_time():
    settings = Settings(max_inspection_seconds=600)
    assert limits_for(100_000, settings).seconds == 60
    assert limits_for(40 * MIB, settings).seconds == 260
    assert limits_for(10_000 * MIB, settings).seconds == 600
