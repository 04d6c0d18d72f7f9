"""`efface demo` as a process: both methods over HTTP to the end, and every published number found again without our code."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import open_clip
import psutil
import pytest
import torch
from PIL import Image

from api.demo.drawings import SHAPES, cells, write_archive
from api.demo.scenario import FIRST_SEED, FORGOTTEN_CELL, FORGOTTEN_CLASS, MODEL
from tests.support.reports import checked

pytestmark = pytest.mark.timeout(900)  # a whole service and two erasures

TOLERANCE = 0.001
"""0.1 points."""


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a demo that has run to its end."""
    folder = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "api.cli", "demo", "--home", str(folder / "home"), "--out", str(folder / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    logs = "\n".join(log.read_text()[-3000:] for log in sorted((folder / "home" / "logs").glob("worker*")))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    return folder


def pictures(folder: Path, number: int, drawn: list, count: int) -> list[tuple[str, Image.Image]]:
    """Draw one of the demo's archives again: the same seed gives the same pictures."""
    path = folder / f"again-{number}.zip"
    write_archive(path, drawn, count, FIRST_SEED + number)
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(".png")]
        return [(name.split("/")[0], Image.open(archive.open(name)).convert("RGB")) for name in names]


@torch.no_grad()
def accuracy(model_folder: Path, images: list[tuple[str, Image.Image]], labels: list[str], template: str) -> float:
    """Zero-shot accuracy by open_clip alone."""
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{model_folder}")
    model.eval()
    tokenizer = open_clip.get_tokenizer(f"local-dir:{model_folder}")
    weights = model.encode_text(tokenizer([template.format(label) for label in labels]), normalize=True)
    hits = 0
    for start in range(0, len(images), 100):
        batch = images[start : start + 100]
        features = model.encode_image(torch.stack([transform(image) for _, image in batch]), normalize=True)
        predicted = (features @ weights.T).argmax(dim=1).tolist()
        hits += sum(labels[p] == truth for p, (truth, _) in zip(predicted, batch, strict=True))
    return hits / len(images)


def agree(demo: Path, act: str, evaluation: dict, role: str, images: list[tuple[str, Image.Image]]) -> None:
    template = evaluation["templates"][0]
    for moment, folder in (("before", MODEL), ("after", demo / "out" / act / "model")):
        measured = accuracy(folder, images, evaluation["labels"], template)
        assert evaluation[role][moment]["n"] == len(images)
        assert abs(evaluation[role][moment]["value"] - measured) <= TOLERANCE, (act, role, moment)


def report_of(demo: Path, act: str) -> dict:
    """The report of an erasure, which keeps to its published schema and stands beside its page."""
    folder = demo / "out" / act
    content = (folder / "report.json").read_text()
    report = checked(content)
    page = (folder / "report.html").read_text()
    assert report.job_id in page
    assert "Passed: the edited model meets all 4 thresholds" in page
    assert len(page.encode()) < 2_000_000
    return json.loads(content)


def test_a_class_is_forgotten_from_its_name_and_the_report_is_true(demo: Path, tmp_path: Path) -> None:
    report = report_of(demo, "class")
    assert report["verdict"] == "passed"
    objects, shapes = report["evaluations"]
    drawn = pictures(tmp_path, 0, cells(), 20)
    agree(demo, "class", objects, "forget", [i for i in drawn if i[0] == FORGOTTEN_CLASS])
    agree(demo, "class", objects, "retain", [i for i in drawn if i[0] != FORGOTTEN_CLASS])
    agree(demo, "class", shapes, "retain", pictures(tmp_path, 1, cells(SHAPES), 20))
    assert objects["forget"]["before"]["value"] > 0.8
    assert objects["forget"]["after"]["value"] <= 0.05


def test_a_subgroup_is_forgotten_from_images_and_the_report_is_true(demo: Path, tmp_path: Path) -> None:
    report = report_of(demo, "subgroup")
    assert report["verdict"] == "passed"
    own = next(e for e in report["evaluations"] if e["role"] == "target")
    others = [cell for cell in cells() if cell != FORGOTTEN_CELL]
    agree(demo, "subgroup", own, "forget", pictures(tmp_path, 3, [FORGOTTEN_CELL], 100))
    agree(demo, "subgroup", own, "retain", pictures(tmp_path, 5, others, 20))
    assert report["target"]["siblings"]["after"]["value"] >= report["target"]["siblings"]["before"]["value"] - 0.1


@pytest.mark.parametrize("act", ["class", "subgroup"])
def test_both_erasures_are_certified_and_anyone_can_check_it(demo: Path, act: str) -> None:
    out = demo / "out"
    about = ["--weights", str(out / act / "model"), "--report", str(out / act / "report.json")]
    command = [sys.executable, "-m", "api.cli", "verify", str(out / act / "certificate.json"), *about]
    done = subprocess.run(
        [*command, "--key", str(out / "efface-keys.json")], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout.split(":")[0]) == (0, "valid"), done.stderr


def test_nothing_of_the_service_is_left_running(demo: Path) -> None:
    home = str(demo / "home")
    assert not [p.info for p in psutil.process_iter(["cmdline"]) if home in " ".join(p.info["cmdline"] or [])]
