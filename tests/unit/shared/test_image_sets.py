"""Sets of images as people have them: how each is understood, and what is said of it."""

from pathlib import Path

import pytest

from shared.errors import InvalidRequest
from shared.files.image_archives import ArchiveLimits, ArchiveSummary, inspect_archive
from shared.settings import Settings
from tests.support.hostile.archives import tarred, zipped
from tests.support.image_sets import ACCEPTED, hugging_face, of_dos, renamed, sample, set_of
from tests.support.requests import png

LIMITS = ArchiveLimits.of(Settings())


def inspected(content: bytes, folder: Path, *, skip_invalid: bool = False) -> ArchiveSummary:
    path = folder / "upload"
    path.write_bytes(content)
    return inspect_archive(path, LIMITS, skip_invalid=skip_invalid)


def refused(content: bytes, folder: Path) -> str:
    with pytest.raises(InvalidRequest) as caught:
        inspected(content, folder)
    said = "; ".join(error.detail for error in caught.value.errors)
    assert " at 0x" not in said
    return said


@pytest.mark.parametrize("name", ACCEPTED)
def test_a_set_as_people_have_it(name: str, tmp_path: Path) -> None:
    build, layout, classes = ACCEPTED[name]
    found = inspected(build(), tmp_path)
    assert (found.layout, found.classes, found.skipped) == (layout, classes, 0)
    assert found.images == sum(classes.values())


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("train and val", "'train', 'val' are parts of one set and were put together"),
        ("three folders around", "'a' around everything was looked through"),
        ("images alone", "no image lies in a class folder"),
        ("a class of trains", "'train' is the name of a class here"),
        ("CP437", "1 names are in an encoding that the archive does not tell"),
        ("shards in a zip", "2 shards were put together"),
        ("Kaggle's table", "the classes come from 'train.csv'"),
        ("captions in class folders", "2 .txt files beside images were read as captions"),
        ("class folders", "1 classes have one image: 'cat'"),
    ],
)
def test_what_was_understood_is_said(name: str, words: str, tmp_path: Path) -> None:
    assert any(words in warning for warning in inspected(ACCEPTED[name][0](), tmp_path).warnings)


@pytest.mark.parametrize(
    ("name", "left_out"),
    [
        (
            "what file managers leave",
            {".DS_Store": 1, ".md": 1, "Thumbs.db": 1, "__MACOSX": 1, "desktop.ini": 1, "other": 1},
        ),
        (
            "members beside samples",
            {".caption.json": 1, ".left.png": 1, ".mp3": 1, ".npy": 1, ".parquet": 1, ".seg.png": 1},
        ),
        ("notes of a tool in class folders", {".json": 1, ".xml": 1}),
        ("a table that says what the folders say", {".csv": 1}),
        ("class folders", {}),
    ],
)
def test_what_was_left_out_is_counted(name: str, left_out: dict[str, int], tmp_path: Path) -> None:
    found = inspected(ACCEPTED[name][0](), tmp_path)
    assert found.left_out == left_out
    assert any("were left out" in warning for warning in found.warnings) == bool(left_out)


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        (("Cat", "cat"), "'Cat', 'cat' may be one"),
        (("hot_dog", "hot dog"), "'hot dog', 'hot_dog' may be one"),
        (("0", "1"), "the classes are numbers"),
        (("images", "cat"), "'images' is the name of a class here"),
    ],
)
def test_odd_classes_are_named(classes: tuple[str, ...], words: str, tmp_path: Path) -> None:
    names = [f"{name}/{number}.png" for name in classes for number in range(2)]
    assert any(words in warning for warning in inspected(zipped(set_of(*names)), tmp_path).warnings)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            lambda: zipped(set_of("train/cat/1.png", "train/dog/1.png", "test/2.png")),
            "'test/2.png' lies beside the class",
        ),
        (lambda: renamed({"cat~1.png": b"cat\\1.png"}), "has a backslash in its name"),
        (lambda: of_dos("cat\\1.png", "..\\dog.png"), "would leave the folder"),
        (lambda: zipped(set_of("cat/1.png", **{"cat/2.jxl": b"\xff\x0a"})), "taken are JPEG, PNG"),
        (lambda: tarred([*sample("0", "cat"), ("1.left.png", png(1)), ("1.cls", b"cat")]), "no image beside it"),
        (lambda: hugging_face(0, -1), "numbers count classes from 0"),
        (lambda: zipped([("a.csv", b"id,label\n1,cat\n")]), "holds no image"),
    ],
)
def test_what_cannot_be_told_is_refused_by_name(content, words: str, tmp_path: Path) -> None:
    assert words in refused(content(), tmp_path)


def test_joiners_are_spelling(tmp_path: Path) -> None:
    found = inspected(zipped(set_of("cat/\u06cc\u200c\u06cc.png", "cat/2.png")), tmp_path)
    assert found.classes == {"cat": 2}


def test_all_bad_members_are_named_at_once(tmp_path: Path) -> None:
    broken = [(f"cat/{number}.png", b"" if number % 2 else b"<html>") for number in range(25)]
    path = tmp_path / "upload"
    path.write_bytes(zipped([*broken, ("dog/1.png", png(0))]))
    with pytest.raises(InvalidRequest) as caught:
        inspect_archive(path, LIMITS)
    details = [error.detail for error in caught.value.errors]
    assert len(details) == 20
    assert details[0].startswith("member 'cat/0.png' is HTML, not an image")
    assert details[1] == "member 'cat/1.png' is empty"
    assert "so are 5 more members" in details[-1]
    assert "skip_invalid=true" in details[-1]


def test_bad_members_may_be_left_out(tmp_path: Path) -> None:
    members = [*set_of("cat/1.png", "dog/1.png"), ("cat/2.png", b""), ("x.exe", b"MZ"), ("3.png", png(3))]
    found = inspected(zipped(members), tmp_path, skip_invalid=True)
    assert (found.images, found.skipped, found.classes) == (2, 3, {"cat": 1, "dog": 1})
    assert any("3 members cannot be used" in warning for warning in found.warnings)


def test_nothing_but_bad_members_is_refused_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "upload"
    path.write_bytes(zipped([("cat/1.png", b"")]))
    with pytest.raises(InvalidRequest, match="is empty"):
        inspect_archive(path, LIMITS, skip_invalid=True)


def test_a_hole_is_never_skipped(tmp_path: Path) -> None:
    path = tmp_path / "upload"
    path.write_bytes(zipped(set_of("cat/1.png", "../2.png")))
    with pytest.raises(InvalidRequest, match="would leave the folder"):
        inspect_archive(path, LIMITS, skip_invalid=True)
