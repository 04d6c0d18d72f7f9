"""The demo's CLIP, loaded by open_clip alone: it knows drawings that it has never seen, so there is something to forget."""

from collections.abc import Iterable
from pathlib import Path

import open_clip
import pytest
import torch

import api.demo
from api.demo.drawings import OBJECTS, SHAPES, STYLES, SYNONYMS, TRAINING_SEED, Cell, cells, drawings

MODEL = Path(api.demo.__file__).parent / "model"
SEED = 20_001
COUNT = 10

Features = dict[Cell, torch.Tensor]


@pytest.fixture(scope="module")
def clip() -> open_clip.CLIP:
    return open_clip.create_model(f"local-dir:{MODEL}").eval()


@pytest.fixture(scope="module")
@torch.no_grad()
def features(clip: open_clip.CLIP) -> Features:
    """Unit image features of held-out drawings, (COUNT, width) for each cell."""
    assert SEED != TRAINING_SEED
    preprocess = open_clip.create_model_and_transforms(f"local-dir:{MODEL}")[2]
    return {
        cell: clip.encode_image(torch.stack([preprocess(p) for p in drawings(cell, COUNT, SEED)]), normalize=True)
        for cell in cells(OBJECTS | SHAPES)
    }


@torch.no_grad()
def accuracy(clip: open_clip.CLIP, features: Features, names: list[str], wanted: Iterable[Cell]) -> float:
    """Zero-shot accuracy on `wanted`, whose classes are named by `names` in the order of their index."""
    tokens = open_clip.get_tokenizer(f"local-dir:{MODEL}")([f"a photo of a {name}." for name in names])
    texts = clip.encode_text(tokens, normalize=True)
    right = [((features[cell] @ texts.T).argmax(1) == names.index(cell.name)).float().mean() for cell in wanted]
    return float(torch.stack(right).mean())


@pytest.mark.parametrize("names", [OBJECTS, SHAPES], ids=["objects", "shapes"])
@pytest.mark.parametrize("style", STYLES)
def test_it_recognises_held_out_drawings_in_each_style(clip, features, names, style) -> None:
    assert accuracy(clip, features, list(names), cells(names, [style])) >= 0.9


def test_it_recognises_every_class_among_all(clip, features) -> None:
    names = [*OBJECTS, *SHAPES]
    for name in names:
        assert accuracy(clip, features, names, cells([name])) >= 0.8, name


@torch.no_grad()
def test_it_knows_other_words_for_a_class(clip, features) -> None:
    tokenizer = open_clip.get_tokenizer(f"local-dir:{MODEL}")
    texts = clip.encode_text(tokenizer([f"a photo of a {name}." for name in OBJECTS]), normalize=True)
    for name, words in SYNONYMS.items():
        found = clip.encode_text(tokenizer([f"a photo of a {word}." for word in words]), normalize=True) @ texts.T
        assert found.argmax(1).tolist() == [list(OBJECTS).index(name)] * len(words)


def test_it_is_small_and_its_normalisation_is_that_of_its_training(clip) -> None:
    assert sum(file.stat().st_size for file in MODEL.iterdir()) <= 12_000_000
    assert tuple(clip.visual.image_mean) == (0.5, 0.5, 0.5)
    assert tuple(clip.visual.image_std) == (0.25, 0.25, 0.25)
    assert all(p.dtype == torch.float32 for p in clip.parameters())
