"""`efface run` says what is wrong with a request in a moment: it does not load torch for it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.fleet import ROOT

SOUND = {
    "model": {"source": "local-dir:."},
    "target": {"type": "class", "class": "horse", "labels": ["horse", "dog"]},
    "method": {"name": "synthetic"},
}
TELL = """
import sys
from pathlib import Path
import typer
from worker.cli import run
try:
    run(Path("request.json"), Path("out"))
except typer.Exit as end:
    print(end.exit_code, "torch" in sys.modules, Path("out").exists())
"""


def told(folder: Path, text: str) -> tuple[str, str]:
    """Run a request file, and return exit code, whether torch was loaded and whether anything was written; and stderr."""
    (folder / "request.json").write_text(text)
    others = {name: value for name, value in os.environ.items() if not name.startswith("EFFACE_")}
    done = subprocess.run(
        [sys.executable, "-c", TELL],
        cwd=folder,
        env=others | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=200,
    )
    return done.stdout.strip(), done.stderr


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": {"path": "clip"}}, "/model/path: is not a field that is known here"),
        ({"model": {"source": "./clip"}}, "/model/source: must begin with local-dir: or hf-hub:"),
        ({"method": {"name": "null_space"}}, "/data/evaluation: gives nothing to tell by"),
        ({"data": {"evaluation": [{"name": "own", "dataset": "nothing"}]}}, "there is nothing at 'nothing'"),
        ({"target": SOUND["target"] | {"labels": ["Horse", "horse"]}}, "/target/labels: names 'Horse', 'horse'"),
    ],
)
def test_a_wrong_request_is_refused_without_torch(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    code, said = told(tmp_path, json.dumps(SOUND | changes))
    assert code == "2 False False"
    assert words in said
    assert "Traceback" not in said


@pytest.mark.parametrize("text", ["{", '{"seed": 1, "seed": 2}', '{"seed": NaN}', "[]"])
def test_so_is_what_is_no_request(tmp_path: Path, text: str) -> None:
    code, said = told(tmp_path, text)
    assert code == "2 False False"
    assert len(said.splitlines()) == 1
