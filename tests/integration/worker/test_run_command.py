"""`efface run` as a process: no server, and a certificate that the same machine can check."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest

from shared.crypto.certificate_keys import KeyFolder
from tests.support import umbrellas
from tests.support.certificates import key_folder
from tests.support.fleet import ROOT

pytestmark = pytest.mark.timeout(300)


def efface(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder, with the settings' defaults."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("EFFACE_")}
    environment = others | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "api.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, timeout=240)


def run(folder: Path, verdict: Literal["passed", "failed"]) -> subprocess.CompletedProcess[str]:
    request = umbrellas.request(folder, verdict, external_id="DSR-1")
    (folder / "request.json").write_text(request.model_dump_json(exclude_unset=True))
    return efface(folder, "run", "request.json", "--out", "out", "--device", "cpu")


def test_what_it_writes_is_certified_with_a_key_of_its_own(tmp_path: Path) -> None:
    umbrellas.write_data(tmp_path)

    passed = run(tmp_path, "passed")
    made = KeyFolder(tmp_path / ".efface" / "signing").signer().key_id
    assert passed.returncode == 0, passed.stderr
    assert f"made signing key {made}" in passed.stderr
    valid = efface(tmp_path, "verify", "out/certificate.json", "--weights", "out/model", "--report", "out/report.json")
    assert (valid.returncode, valid.stdout.split(":")[0]) == (0, "valid"), valid.stderr

    missed = run(tmp_path, "failed")
    assert missed.returncode == 3
    assert "made signing key" not in missed.stderr
    failed = efface(tmp_path, "verify", "out/certificate.json", "--weights", "out/quarantine")
    assert (failed.returncode, failed.stdout.split(":")[0]) == (3, "verdict_failed"), failed.stderr
    (signature,) = json.loads((tmp_path / "out" / "certificate.json").read_text())["signatures"]
    assert signature["keyid"] == made


def test_who_cannot_sign_learns_it_before_the_work_is_done(tmp_path: Path) -> None:
    umbrellas.write_data(tmp_path)
    key_folder(tmp_path / ".efface" / "signing")
    (tmp_path / ".efface" / "signing" / "signing-key.pem").chmod(0o644)

    done = run(tmp_path, "passed")

    assert (done.returncode, "chmod 600" in done.stderr) == (1, True)
    assert list((tmp_path / "out").glob("*")) == []
