"""Two processes under `torchrun` come to the weights and the report of one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from shared.schemas.report import Report
from shared.schemas.request import ErasureRequest
from tests.support.fleet import ROOT
from tests.support.tiny import write_model, write_pictures

pytestmark = pytest.mark.timeout(300)

FLOAT32 = "avx2"
"""A CPU that says it can do no more does not work in bfloat16, where every batch size has a rounding of its own."""
LABELS = ["red", "green", "blue"]
TORCHRUN = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", "--local-addr", "127.0.0.1"]


def write_request(folder: Path, kind: str, parameters: dict[str, object]) -> Path:
    """Write a model, images whose numbers two processes do not divide evenly, and a request."""
    write_model(folder / "model", kind)
    write_pictures(folder / "forget", ("red",), 13, seed=5)
    write_pictures(folder / "retain", tuple(LABELS), 9, seed=6)
    request = {
        "model": {"source": f"local-dir:{folder / 'model'}"},
        "target": {"type": "subgroup", "class": "red", "subgroup": "noisy", "labels": LABELS},
        "method": {"name": "three_stage", "parameters": {"forget_steps": 2, "remind_steps": 3} | parameters},
        "data": {"forget": str(folder / "forget"), "retain": str(folder / "retain")},
        "thresholds": {"max_forget_accuracy": 1.0, "max_retain_drop": 1.0},
    }
    file = folder / "request.json"
    file.write_text(ErasureRequest.model_validate(request).model_dump_json(exclude_unset=True, by_alias=True))
    return file


def efface(folder: Path, launcher: list[str], *arguments: str) -> subprocess.CompletedProcess[str]:
    others = {name: value for name, value in os.environ.items() if not name.startswith("EFFACE_")}
    environment = others | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ATEN_CPU_CAPABILITY": FLOAT32}
    command = [sys.executable, *launcher, "-m", "api.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, timeout=240)


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        ("resnet", {"directions": "random", "rank": 4}),
        # of these images, a random model tells one direction apart
        ("vit", {"directions": "relative_fisher", "rank": 1}),
    ],
)
def test_two_processes_come_to_the_result_of_one(tmp_path: Path, kind: str, parameters: dict[str, object]) -> None:
    request = write_request(tmp_path, kind, parameters)
    for out, launcher in (("one", []), ("two", TORCHRUN)):
        done = efface(tmp_path, launcher, "run", str(request), "--out", out, "--device", "cpu")
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("passed:") == 1  # one of the processes speaks
    folders = (tmp_path / name for name in ("model", "one/model", "two/model"))
    original, one, two = (load_file(folder / "open_clip_model.safetensors") for folder in folders)
    changed = [name for name in one if not torch.equal(one[name], original[name])]
    assert changed
    assert [name for name in two if not torch.equal(two[name], original[name])] == changed
    # Float32 adds up in another order; without the others' gradients it would be half of the change.
    for name in changed:
        assert (two[name] - one[name]).norm() < 1e-3 * (one[name] - original[name]).norm(), name
    first, second = (
        Report.model_validate_json((tmp_path / out / "report.json").read_bytes()) for out in ("one", "two")
    )
    assert first.target == second.target
