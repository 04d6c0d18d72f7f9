"""Classes on disk, and whether they fit a request."""

import tarfile
from pathlib import Path

import pytest

from shared.errors import InvalidRequest
from shared.files.image_archives import ArchiveLimits
from shared.request_rules.classes import class_counts, class_errors
from shared.settings import Settings
from tests.support import requests

LIMITS = ArchiveLimits.of(Settings())
CLIP = Path("/models/clip")


def test_an_archive(tmp_path: Path) -> None:
    assert class_counts(requests.archive(tmp_path / "a.zip", "horse", "dog"), LIMITS) == {"horse": 1, "dog": 1}


@pytest.mark.parametrize("around", ["", "images"])
def test_class_folders(tmp_path: Path, around: str) -> None:
    requests.folder(tmp_path / around, "horse", "dog")
    (tmp_path / around / ".cache").mkdir()
    (tmp_path / around / "empty").mkdir()
    assert class_counts(tmp_path, LIMITS) == {"dog": 1, "horse": 1}


def shard(path: Path, label: str) -> None:
    folder = path.with_suffix("")
    folder.mkdir()
    (folder / "0.png").write_bytes(requests.png(0))
    (folder / "0.cls").write_text(label)
    with tarfile.open(path, "w") as archive:
        for file in folder.iterdir():
            archive.add(file, file.name)
            file.unlink()
    folder.rmdir()


def test_shards(tmp_path: Path) -> None:
    shard(tmp_path / "0.tar", "horse")
    shard(tmp_path / "1.tar", "dog")
    assert class_counts(tmp_path, LIMITS) == {"dog": 1, "horse": 1}


def test_shards_with_numbers_for_labels(tmp_path: Path) -> None:
    shard(tmp_path / "0.tar", "1")
    shard(tmp_path / "1.tar", "1")
    (tmp_path / "classnames.txt").write_text("dog\nhorse\n")
    assert class_counts(tmp_path, LIMITS) == {"horse": 2}  # no image shows a dog


def test_a_number_beyond_the_names_of_the_shards(tmp_path: Path) -> None:
    shard(tmp_path / "0.tar", "2")
    (tmp_path / "classnames.txt").write_text("dog\nhorse\n")
    with pytest.raises(InvalidRequest, match="has 2 lines"):
        class_counts(tmp_path, LIMITS)


def test_a_folder_without_images(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="no image"):
        class_counts(tmp_path, LIMITS)


def test_one_folder_of_any_name_may_show_what_is_forgotten() -> None:
    request = requests.subgroup(CLIP, forget="f", retain="r")
    assert class_errors(request, {"/data/forget": {"sketches"}, "/data/retain": {"horse", "dog"}}) == []


@pytest.mark.parametrize(
    ("pointer", "found", "words"),
    [
        ("/data/forget", {"horse", "dog"}, "'dog', which is not to be forgotten"),
        ("/data/forget_test", {"horse", "dog"}, "'dog', which is not to be forgotten"),
        ("/data/retain", {"horse", "fish"}, "'fish', which is not among target.labels"),
        ("/data/retain_test", {"unlabelled"}, "no class folders"),
    ],
)
def test_what_does_not_fit_a_subgroup(pointer: str, found: set[str], words: str) -> None:
    (error,) = class_errors(requests.subgroup(CLIP, forget="f", retain="r"), {pointer: found})
    assert error.pointer == pointer
    assert words in error.detail


def test_what_is_retained_of_a_class_that_is_forgotten() -> None:
    request = requests.names_only(CLIP)
    (error,) = class_errors(request, {"/data/retain": {"horse", "dog"}})
    assert "'horse', which is to be forgotten" in error.detail


def test_retained_images_need_no_known_class_where_an_evaluation_set_shows_the_target() -> None:
    classes = {"/data/retain": {"unlabelled"}, "/data/evaluation/0/dataset": {"horse", "dog"}}
    assert class_errors(requests.names_only(CLIP), classes) == []


@pytest.mark.parametrize(
    ("found", "labels", "where", "words"),
    [
        ({"unlabelled"}, [], "dataset", "no class folders"),
        ({"fish"}, [], "labels", "lacks 'fish'"),
        ({"horse"}, ["fish", "bird"], "labels", "lacks 'horse'"),
    ],
)
def test_what_an_earlier_erasure_took_away_is_named(found: set[str], labels: list[str], where: str, words: str) -> None:
    earlier = {"name": "before", "dataset": "e", "labels": labels}
    request = requests.names_only(CLIP, data={"earlier": [earlier]})
    (error,) = class_errors(request, {"/data/earlier/0/dataset": found})
    assert error.pointer == f"/data/earlier/0/{where}"
    assert words in error.detail


def test_labels_of_an_earlier_erasure_that_fit() -> None:
    earlier = [{"name": "a", "dataset": "e"}, {"name": "b", "dataset": "f", "labels": ["fish", "bird"]}]
    request = requests.names_only(CLIP, data={"earlier": earlier})
    assert class_errors(request, {"/data/earlier/0/dataset": {"cat"}, "/data/earlier/1/dataset": {"fish"}}) == []
