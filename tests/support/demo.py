"""Erasures in the demo's CLIP. It knows drawings that it has never seen, so there is something to forget."""

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

import api.demo
from api.demo.drawings import OBJECTS, Cell, cells, drawings
from shared.schemas.request import ErasureRequest, Thresholds
from worker.clip import Clip, zero_shot_classifier
from worker.clip.checkpoint import load_clip
from worker.data.archives import folder_digest, folder_files, image_set
from worker.data.images import ImageSet
from worker.data.splits import CALIBRATION_SHARE, split
from worker.evaluation.features import features_of
from worker.methods import stages_of
from worker.methods.frame import Erasure, MemoryStore, MethodData
from worker.ports import Silent

MODEL = Path(api.demo.__file__).parent / "model"
LABELS = tuple(OBJECTS)
GONE = "umbrella"
CELL = Cell("fish", "sketch")
CLASS = {"type": "class", "class": GONE, "labels": LABELS}
SUBGROUP = {"type": "subgroup", "class": CELL.name, "subgroup": CELL.style, "labels": LABELS}


@cache
def clip() -> Clip:
    """Return the demo's CLIP, frozen; erasures edit twins of it."""
    with TemporaryDirectory() as scratch:
        loaded = load_clip(f"local-dir:{MODEL}", scratch=Path(scratch))
    loaded.model.requires_grad_(False)
    return loaded


def draw(folder: Path, wanted: Iterable[Cell], count: int, seed: int) -> ImageSet:
    """Write `count` drawings of each cell as class folders and return them."""
    for cell in wanted:
        (folder / cell.name).mkdir(parents=True, exist_ok=True)
        for number, picture in enumerate(drawings(cell, count, seed)):
            picture.save(folder / cell.name / f"{cell.style}-{number}.png")
    files = folder_files(folder)
    return image_set(folder.name, folder_digest(folder, files), folder, files)


def is_gone(cell: Cell, target: Mapping[str, Any]) -> bool:
    """True for what a target asks to forget."""
    return cell == CELL if target["type"] == "subgroup" else cell.name == GONE


def learnt_from(folder: Path, target: Mapping[str, Any], *, forget: int = 8, retain: int = 3) -> MethodData:
    """Draw what a method learns from: so many of each cell, a quarter of them set aside."""
    gone = [cell for cell in cells() if is_gone(cell, target)]
    kept = [cell for cell in cells() if not is_gone(cell, target)]
    forgotten, calibration_forget = split(draw(folder / "forget", gone, forget, 101), CALIBRATION_SHARE)
    retained, calibration_retain = split(draw(folder / "retain", kept, retain, 102), CALIBRATION_SHARE)
    return MethodData(forgotten, retained, calibration_forget, calibration_retain)


def erasure(
    method: str,
    target: Mapping[str, Any],
    data: MethodData | None = None,
    *,
    parameters: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Erasure:
    """Return an erasure in the demo's CLIP as the pipeline would set it up."""
    request = ErasureRequest.model_validate(
        {
            "model": {"id": "demo"},
            "target": target,
            "method": {"name": method, "parameters": parameters or {}},
            "seed": seed,
        }
    )
    return Erasure.of(
        request,
        clip().frozen_twin(),
        thresholds=Thresholds(max_forget_accuracy=0.05),
        labels=LABELS,
        data=data or MethodData(),
        store=MemoryStore(),
        progress=Silent(),
    )


def run(erasure: Erasure) -> Erasure:
    """Run every stage of the erasure's method."""
    for stage in stages_of(erasure.request):
        erasure.stage = stage.stage
        stage.run(erasure)
    return erasure


def recognised(clip: Clip, images: ImageSet) -> float:
    """Return the share of images that a model gives their class, among all objects."""
    embedded = features_of(clip, images).embeddings
    predicted = (embedded @ zero_shot_classifier(clip, LABELS, ["a photo of a {}."]).T).argmax(dim=1)
    truth = torch.tensor([LABELS.index(name) for name in images.names()])
    return float((predicted == truth).float().mean())


def changed(erasure: Erasure) -> set[str]:
    """Return the names of the tensors that an erasure has changed."""
    before, after = erasure.original.model.state_dict(), erasure.clip.model.state_dict()
    return {name for name in before if not torch.equal(before[name], after[name])}
