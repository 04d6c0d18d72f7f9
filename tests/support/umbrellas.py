"""An erasure of the demo's own CLIP in seconds, whose verdict a test can choose: umbrellas are forgotten.

A second evaluation set shows the same umbrellas under the name that stays, parasol: with the one the other is lost, so
that a narrow limit on the transfer drop is missed and a wide one is met.
"""

import shutil
from pathlib import Path
from typing import Any, Literal

from api.demo.drawings import Cell, write_archive
from api.demo.scenario import FIRST_SEED, MODEL
from shared.schemas.request import ErasureRequest

LIMITS = {"passed": 1.0, "failed": 0.02}
LABELS = ("umbrella", "cup", "car")


def write_data(folder: Path) -> None:
    """Write model and evaluation sets for `request`."""
    shutil.copytree(MODEL, folder / "demo")
    write_archive(folder / "own.zip", [Cell(name, "photo") for name in LABELS], 4, FIRST_SEED)
    shutil.unpack_archive(folder / "own.zip", folder / "other")
    (folder / "other" / "umbrella").rename(folder / "other" / "parasol")


def request(folder: Path, verdict: Literal["passed", "failed"], **changes: Any) -> ErasureRequest:
    """Return a request on what `write_data` wrote that ends with this verdict."""
    evaluation = [
        {"name": name, "dataset": str(folder / file)} for name, file in (("own", "own.zip"), ("other", "other"))
    ]
    body = {
        "model": {"source": f"local-dir:{folder / 'demo'}"},
        "target": {"type": "class", "class": "umbrella", "labels": LABELS},
        "method": {"name": "null_space"},
        "data": {"evaluation": evaluation},
        "thresholds": {"max_forget_accuracy": 1, "max_retain_drop": 1, "max_transfer_drop": LIMITS[verdict]},
    }
    return ErasureRequest.model_validate(body | changes)
