"""What the gateway counts is what a worker loads: the same classes, and the same images in each."""

import hashlib
from collections import Counter
from pathlib import Path

import pytest
import torch

from shared.files.image_archives import ArchiveLimits, inspect_archive
from shared.schemas.spec import DataSource
from shared.settings import Settings
from tests.support.hostile.archives import zipped
from tests.support.image_sets import ACCEPTED, set_of, unpacked
from worker.data.archives import open_images
from worker.data.images import ImageSet

LIMITS = ArchiveLimits.of(Settings())
ODD_NAMES = {"UTF-8 that is not declared", "decomposed UTF-8 that is not declared", "CP437", "Unicode path"}
"""Which other tools unpack otherwise than their owners mean."""
ODD_NAMES |= {"backslashes of MS-DOS", "Unicode path of another name"}


def opened(path: Path, scratch: Path, *, skip_invalid: bool = False) -> ImageSet:
    return open_images(DataSource(name="own", uri=str(path), skip_invalid=skip_invalid), scratch=scratch)


def contents(images: ImageSet) -> Counter[tuple[str, str]]:
    """Return (class, digest of an image) pairs."""
    names = images.names()
    return Counter((names[i], hashlib.sha256(path.read_bytes()).hexdigest()) for i, path in enumerate(images.paths))


@pytest.mark.parametrize("name", ACCEPTED)
def test_gateway_and_worker_read_alike(name: str, tmp_path: Path) -> None:
    content = ACCEPTED[name][0]()
    path = tmp_path / "archive"
    path.write_bytes(content)
    counted = inspect_archive(path, LIMITS)
    images = opened(path, tmp_path / "scratch")

    assert Counter(images.names()) == counted.classes
    assert len(images) == counted.images
    assert images.digest == counted.sha256
    assert images.pixels(lambda _: torch.zeros(1)).shape == (counted.images, 1)
    if name in ODD_NAMES or not zipped_or_tarred(content):
        return
    folder = unpacked(content, tmp_path / "folder")
    assert contents(opened(folder, tmp_path / "more")) == contents(images)


def zipped_or_tarred(content: bytes) -> bool:
    return not content.startswith(b"PAR1")


def test_captions_are_read(tmp_path: Path) -> None:
    captions = {}
    for name in ("captions in class folders", "metadata.csv", "labels of every kind"):
        path = tmp_path / name
        path.write_bytes(ACCEPTED[name][0]())
        captions[name] = opened(path, tmp_path / f"scratch of {name}").captions
    assert captions == {
        "captions in class folders": ("a cat", "two dogs", None),
        "metadata.csv": ("a", "b", "c"),
        "labels of every kind": (None, "a dog", None),
    }


def test_a_worker_leaves_out_what_the_gateway_did(tmp_path: Path) -> None:
    path = tmp_path / "archive"
    path.write_bytes(zipped([*set_of("cat/1.png", "dog/1.png"), ("cat/0.png", b"<html>"), ("dog/2.txt.exe", b"MZ")]))
    counted = inspect_archive(path, LIMITS, skip_invalid=True)
    images = opened(path, tmp_path / "scratch", skip_invalid=True)
    assert counted.skipped == 2
    assert Counter(images.names()) == counted.classes == {"cat": 1, "dog": 1}
    assert images.pixels(lambda _: torch.zeros(1)).shape == (2, 1)


def test_images_are_called_as_in_their_archive(tmp_path: Path) -> None:
    path = tmp_path / "archive"
    path.write_bytes(zipped(set_of("all/dog/2.png", "all/cat/1.png")))
    images = opened(path, tmp_path / "scratch")
    assert [images.member(place) for place in images.paths] == ["cat/1.png", "dog/2.png"]


def test_images_come_folder_by_folder(tmp_path: Path) -> None:
    path = tmp_path / "archive"
    path.write_bytes(zipped(set_of("dog/2.png", "cat/1.png", "dog/1.png", "cat-2/1.png")))
    assert opened(path, tmp_path / "scratch").names() == ["cat", "cat-2", "dog", "dog"]
