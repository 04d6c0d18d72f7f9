"""The demo's drawings: fixed by the seed, of every object in every style, and packed as promised."""

import io
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from api.demo.drawings import OBJECTS, SHAPES, STYLES, SYNONYMS, Cell, cells, draw, drawings, write_archive


def pixels(cell: Cell, seed: int, count: int = 1) -> np.ndarray:
    return np.stack([np.asarray(picture) for picture in drawings(cell, count, seed)])


def test_objects_and_shapes_are_different_classes() -> None:
    assert len(OBJECTS) >= 10
    assert not OBJECTS.keys() & SHAPES.keys()
    assert SYNONYMS.keys() <= OBJECTS.keys()
    assert not {word for words in SYNONYMS.values() for word in words} & (OBJECTS | SHAPES).keys()


@pytest.mark.parametrize("cell", cells(OBJECTS | SHAPES), ids="-".join)
def test_every_cell_is_fixed_by_its_seed_and_varies_with_it(cell: Cell) -> None:
    drawn = pixels(cell, seed=3, count=2)
    assert np.array_equal(drawn, pixels(cell, seed=3, count=2))
    assert not np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], pixels(cell, seed=4)[0])


@pytest.mark.parametrize("cell", cells(OBJECTS | SHAPES), ids="-".join)
def test_every_cell_shows_something_against_its_background(cell: Cell) -> None:
    for picture in pixels(cell, seed=5, count=3):
        assert picture.shape == (64, 64, 3)
        assert picture.astype(float).std() > 5


def test_size_is_the_side_of_the_picture() -> None:
    picture = draw("fish", "neon", np.random.default_rng(0), size=96)
    assert picture.size == (96, 96)
    assert picture.mode == "RGB"


def test_cells_of_one_seed_do_not_share_their_randomness() -> None:
    first, second = pixels(Cell("circle", "cartoon"), seed=6), pixels(Cell("square", "cartoon"), seed=6)
    assert not np.array_equal(first[0, 0, 0], second[0, 0, 0])  # the corner shows the background's colour


def test_archive_holds_the_cells_asked_for(tmp_path: Path) -> None:
    wanted = cells(["fish", "cat"], ["photo", "sketch"])
    wanted.remove(Cell("fish", "sketch"))
    assert write_archive(tmp_path / "retain.zip", wanted, count=3, seed=7) == 9
    with zipfile.ZipFile(tmp_path / "retain.zip") as archive:
        found = Counter((name.split("/")[0], name.split("/")[1].split("-")[0]) for name in archive.namelist())
        shown = Image.open(io.BytesIO(archive.read("cat/sketch-7-0002.png")))
    assert found == dict.fromkeys(wanted, 3)
    assert np.array_equal(np.asarray(shown), pixels(Cell("cat", "sketch"), seed=7, count=3)[2])


def test_archive_of_the_same_arguments_has_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one.zip", "two.zip"):
        write_archive(tmp_path / name, cells(SHAPES), count=1, seed=8)
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    assert zipfile.ZipFile(tmp_path / "one.zip").testzip() is None
    assert len(zipfile.ZipFile(tmp_path / "one.zip").namelist()) == len(SHAPES) * len(STYLES)
