"""A scratch folder goes with its process, or with the next one in its role where it was killed."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from shared.scratch import scratch_folder

HOLD = """
import sys
from shared.scratch import scratch_folder
with scratch_folder("worker") as folder:
    (folder / "picture.png").touch()
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def holder(temporary: Path) -> tuple[subprocess.Popen[str], Path]:
    command = [sys.executable, "-c", HOLD]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={"TMPDIR": str(temporary)}, text=True
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_it_is_gone_at_the_end(temporary: Path) -> None:
    with scratch_folder("worker") as folder:
        (folder / "picture.png").touch()
        assert folder.parent == temporary
    assert not folder.exists()


def test_another_workers_folder_stays_while_it_lives_and_goes_when_it_was_killed(temporary: Path) -> None:
    process, theirs = holder(temporary)
    with scratch_folder("worker"):
        assert (theirs / "picture.png").exists()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert theirs.exists()
    with scratch_folder("worker") as ours:
        assert not theirs.exists()
        assert ours.exists()


def test_a_folder_that_is_not_a_workers_stays(temporary: Path) -> None:
    other = temporary / "efface-worker-notes"
    other.mkdir()
    with scratch_folder("worker"):
        pass
    assert other.exists()
