"""The demo's CLIP before the audit, with an edit of one's own: what a method would leave, without running one."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

import api.demo
from api.demo.drawings import OBJECTS, SHAPES, SYNONYMS, Cell, drawings
from shared.schemas.request import ErasureRequest
from worker.clip import Clip
from worker.clip.checkpoint import load_clip
from worker.data.images import ImageSet
from worker.evaluation.features import features_of_pixels
from worker.evaluation.measures.weights import model_change
from worker.evaluation.subject import Subject
from worker.evaluation.views import Case, View

MODEL = Path(api.demo.__file__).parent / "model"
FORGOTTEN = "umbrella"
LABELS = tuple(OBJECTS)
TEMPLATES = ("a photo of a {}.",)
Edit = Callable[[Clip], None]


def load_demo(scratch: Path) -> Clip:
    """Return the demo's CLIP."""
    return load_clip(f"local-dir:{MODEL}", scratch=scratch)


def draw(folder: Path, names: Iterable[str], count: int, seed: int) -> ImageSet:
    """Draw `count` pictures of each class in the style of photos, as the audit's image sets are."""
    names = tuple(names)
    paths, labels = [], []
    for label, name in enumerate(names):
        for number, picture in enumerate(drawings(Cell(name, "photo"), count, seed)):
            path = folder / f"{name}-{seed}-{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path)
            paths.append(path)
            labels.append(label)
    return ImageSet(folder.name, folder.name, tuple(paths), tuple(labels), names)


class Bench:
    """The demo's CLIP and drawings: cases of edits of one class."""

    def __init__(self, folder: Path, count: int = 24) -> None:
        """Draw the images and take the original's features."""
        (folder / "scratch").mkdir()
        self.original = load_demo(folder / "scratch")
        self.objects, self.shapes = (
            draw(folder / "objects", OBJECTS, count, 501),
            draw(folder / "shapes", SHAPES, count, 502),
        )
        self.given = draw(folder / "given", [FORGOTTEN], count, 503)
        self._sets = {"objects": self.objects, "shapes": self.shapes, "data.forget": self.given}
        self._pixels = {name: images.pixels(self.original.transform) for name, images in self._sets.items()}
        self._before = self._subject(self.original)

    def edited(self, edit: Edit) -> Clip:
        """Return a copy of the CLIP after an edit."""
        clip = self.original.frozen_twin()
        with torch.no_grad():
            edit(clip)
        return clip

    def case(self, clip: Clip, *, reference: Clip | None = None, **changes: Any) -> Case:
        """Return the case of a CLIP that is said to have forgotten umbrellas; `changes` go into the request."""
        return Case(
            request=self.request(**changes),
            labels=LABELS,
            views=(self._view("objects", LABELS), self._view("shapes", tuple(SHAPES))),
            original=self._before,
            unlearned=self._subject(clip),
            change=model_change(self.original, clip),
            reference=self._subject(reference) if reference else None,
            given=self.given,
            own_images=self.objects,
        )

    @staticmethod
    def target(**changes: Any) -> dict[str, Any]:
        """Return the target: umbrellas."""
        target = {"type": "class", "class": FORGOTTEN, "synonyms": SYNONYMS[FORGOTTEN], "labels": LABELS}
        return target | changes

    @classmethod
    def request(cls, **changes: Any) -> ErasureRequest:
        """Return the request to forget umbrellas."""
        request = {"model": {"id": "demo"}, "target": cls.target(), "method": {"name": "synthetic"}}
        return ErasureRequest.model_validate(request | changes)

    def _subject(self, clip: Clip) -> Subject:
        return Subject(clip, {name: features_of_pixels(clip, pixels) for name, pixels in self._pixels.items()})

    def _view(self, name: str, labels: tuple[str, ...]) -> View:
        names = tuple(self._sets[name].names())
        return View(
            name=name,
            role="target" if name == "objects" else "transfer",
            names=names,
            roles=tuple("forget" if own == FORGOTTEN else "retain" for own in names),
            labels=labels,
            templates=TEMPLATES,
        )
