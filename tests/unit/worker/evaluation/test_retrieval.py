"""Captions from shards to the audit: who finds whom."""

import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from shared.files.dataset_layouts import MAX_CAPTION_CHARACTERS, sample_caption
from tests.support.audits import FORGOTTEN, Bench
from worker.clip import Clip
from worker.data.archives import read_images
from worker.evaluation.measures import retrieval
from worker.evaluation.plan import make_plan
from worker.evaluation.separation import Opened
from worker.evaluation.views import Case


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"), count=4)


@pytest.mark.parametrize(
    ("texts", "caption"),
    [
        ({"cls": b"dog", "txt": b" a dog \n on a lawn "}, "a dog on a lawn"),
        ({"json": b'{"label": "dog", "caption": "a dog"}'}, "a dog"),
        ({"json": b'{"label": "dog", "caption": "a dog"}', "txt": b"another one"}, "another one"),
        ({"txt": b"dog"}, None),
        ({"cls": b"dog"}, None),
        ({"cls": b"dog", "txt": b" "}, None),
        ({"json": b'{"label": "dog", "caption": 3}'}, None),
        ({"cls": b"dog", "txt": b"x" * 5000}, "x" * MAX_CAPTION_CHARACTERS),
        ({"cls": b"dog", "txt": b"\xff"}, "\ufffd"),
    ],
)
def test_what_counts_as_a_caption(texts: dict[str, bytes], caption: str | None) -> None:
    assert sample_caption(texts) == caption


def shard(path: Path, samples: dict[str, tuple[str, str | None]]) -> Path:
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "PNG")
    with tarfile.open(path, "w") as archive:
        for key, (label, caption) in samples.items():
            members = {"png": picture.getvalue(), "json": json.dumps({"label": label}).encode()}
            members |= {"txt": caption.encode()} if caption else {}
            for suffix, content in members.items():
                info = tarfile.TarInfo(f"{key}.{suffix}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return path


def test_a_captioned_set_is_measured_with_its_captions(tmp_path: Path) -> None:
    samples = {str(n): (label, None if n == 1 else f"{label} {n}") for n, label in enumerate([FORGOTTEN, "cup", "cup"])}
    images = read_images("own", shard(tmp_path / "own.tar", samples), tmp_path / "images")
    assert images.subset([2, 0]).captions == ("cup 2", f"{FORGOTTEN} 0")
    request = Bench.request(
        target=Bench.target(labels=[FORGOTTEN, "cup"]), data={"evaluation": [{"name": "own", "dataset": "ds_1"}]}
    )
    opened = Opened(None, None, None, None, None, None, (images,))
    assert make_plan(request, opened).measurements[0].view.captions == (f"{FORGOTTEN} 0", None, "cup 2")


def test_ranks_by_hand() -> None:
    """Three images, two captions; the second and third image have the second caption."""
    images = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    captions = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    cosines = images @ captions.T
    finds_caption, finds_image = retrieval.ranked(cosines, torch.tensor([0, 1, 1]), 1)
    assert finds_caption.tolist() == [1, 0, 1]  # the second image takes the first caption
    assert finds_image.tolist() == [1, 1, 1]  # each caption finds one of its images
    assert all(hits.all() for hits in retrieval.ranked(cosines, torch.tensor([0, 1, 1]), 5))


def captioned(bench: Bench, clip: Clip) -> Case:
    """Return a case whose objects have the captions that their names make."""
    case = bench.case(clip)
    objects, *others = case.views
    own = replace(objects, captions=tuple(f"a photo of a {name}." for name in objects.names))
    return replace(case, views=(own, *others))


def test_a_blind_image_tower_finds_no_caption(bench: Bench) -> None:
    def blind(clip: Clip) -> None:
        clip.model.visual.proj.copy_(torch.randn(clip.model.visual.proj.shape, generator=torch.manual_seed(0)))

    found = {m.name: m for m in retrieval.measure(captioned(bench, bench.edited(blind)))}
    for name in retrieval.NAMES:
        measure = found[name]
        assert measure.original and measure.original.value > 0.9
        assert measure.unlearned.value < measure.original.value - 0.1
        assert measure.where == "objects"
        assert measure.unlearned.n == 44
    likeness = found["forgotten_pair_similarity"]
    assert likeness.original and likeness.unlearned.value < likeness.original.value - 0.1
    assert (likeness.unlearned.n, likeness.unlearned.low is None) == (4, False)


def test_too_few_captions_are_said(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "FEWEST", 45)
    found = {
        finding.name for finding in retrieval.measure(captioned(bench, bench.original)) if hasattr(finding, "reason")
    }
    assert found == set(retrieval.NAMES)
