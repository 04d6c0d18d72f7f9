"""The demo's CLIP, loaded by open_clip alone: it knows drawings that it has never seen, so there is something to forget."""

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


@pytest.fixture(scope="module")
@torch.no_grad()
def texts(clip: open_clip.CLIP) -> dict[str, torch.Tensor]:
    """Unit text features, (width,) for each class and each synonym."""
    words = [*OBJECTS, *SHAPES, *(word for synonyms in SYNONYMS.values() for word in synonyms)]
    tokens = open_clip.get_tokenizer(f"local-dir:{MODEL}")([f"a photo of a {word}." for word in words])
    return dict(zip(words, clip.encode_text(tokens, normalize=True), strict=True))


def accuracy(features: Features, texts: dict[str, torch.Tensor], names: list[str], wanted: list[Cell]) -> float:
    """Zero-shot accuracy on `wanted` among `names`."""
    classifier = torch.stack([texts[name] for name in names])
    right = [((features[cell] @ classifier.T).argmax(1) == names.index(cell.name)).float().mean() for cell in wanted]
    return float(torch.stack(right).mean())


@pytest.mark.parametrize("names", [OBJECTS, SHAPES], ids=["objects", "shapes"])
@pytest.mark.parametrize("style", STYLES)
def test_it_recognises_held_out_drawings_in_each_style(features, texts, names, style) -> None:
    assert accuracy(features, texts, list(names), cells(names, [style])) >= 0.9


@pytest.mark.parametrize("name", OBJECTS | SHAPES)
def test_it_recognises_each_class_among_all(features, texts, name) -> None:
    assert accuracy(features, texts, [*OBJECTS, *SHAPES], cells([name])) >= 0.9


def test_it_knows_other_words_for_a_class(texts) -> None:
    for name, synonyms in SYNONYMS.items():
        for word in synonyms:
            assert max(OBJECTS, key=lambda other: float(texts[word] @ texts[other])) == name


def test_it_is_small_and_its_normalisation_is_that_of_its_training(clip) -> None:
    assert sum(file.stat().st_size for file in MODEL.iterdir()) <= 12_000_000
    assert tuple(clip.visual.image_mean) == (0.5, 0.5, 0.5)
    assert tuple(clip.visual.image_std) == (0.25, 0.25, 0.25)
    assert all(p.dtype == torch.float32 for p in clip.parameters())
