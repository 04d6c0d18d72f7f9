"""Pairs of small CLIPs: one that was trained with what a request wants forgotten, and one that
never saw it, the gold.

Both come from one recipe and one seed. The gold lacks the images of what is forgotten, every
caption that is true of nothing else, and so its names and synonyms; kinds ("animal") and other
styles of the class stay, of the images that are left. What was trained is kept below a folder,
under the digest of everything that it depends on."""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image

from api.demo import drawings as drawn
from api.demo.scenario import FORGOTTEN_CELL, FORGOTTEN_CLASS, MODEL
from benchmarks import train_demo_clip as demo
from benchmarks.bench_images import CIFAR
from benchmarks.clip_training import Caption, Pictures, Recipe, save, train
from shared.files.image_archives import file_sha256

DEMO_DRAWINGS = 200
"""In each cell, as the demo's model was trained on."""
CIFAR_CLASS = "horse"
CIFAR_CONFIG: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 128,
        "vision_cfg": {
            "image_size": 32,
            "patch_size": 8,
            "width": 128,
            "head_width": 64,
            "layers": 4,
        },
        "text_cfg": {
            "context_length": 32,
            "vocab_size": 49408,
            "width": 64,
            "heads": 2,
            "layers": 2,
        },
    },
    "preprocess_cfg": demo.CONFIG["preprocess_cfg"],  # what `demo.normalise` does
}
CIFAR_RECIPE = Recipe(epochs=3)
CIFAR_SYNONYMS = {
    "airplane": ["plane", "jet"],
    "automobile": ["car"],
    "bird": ["songbird"],
    "cat": ["kitten"],
    "deer": ["stag"],
    "dog": ["puppy"],
    "frog": ["toad"],
    "horse": ["pony", "stallion"],
    "ship": ["boat"],
    "truck": ["lorry"],
}
CIFAR_KINDS = {
    "vehicle": ["airplane", "automobile", "ship", "truck"],
    "animal": ["bird", "cat", "deer", "dog", "frog", "horse"],
}


@dataclass(frozen=True, slots=True)
class Pair:
    """Two models in open_clip's local-dir layout."""

    original: Path
    gold: Path


def demo_class(cache: Path) -> Pair:
    """Return the demo's model, and one that never saw an umbrella."""
    return Pair(
        MODEL, demo_gold(cache, [cell for cell in demo.CELLS if cell.name != FORGOTTEN_CLASS])
    )


def demo_subgroup(cache: Path) -> Pair:
    """Return the demo's model, and one that never saw a fish in the style sketch."""
    return Pair(MODEL, demo_gold(cache, [cell for cell in demo.CELLS if cell != FORGOTTEN_CELL]))


def cifar(cache: Path, images: Path) -> Pair:
    """Return a CLIP trained on CIFAR-10, and one that never saw a horse."""
    kept = [name for name in CIFAR if name != CIFAR_CLASS]
    return Pair(cifar_clip(cache, images, CIFAR), cifar_clip(cache, images, kept))


def demo_gold(cache: Path, known: Sequence[drawn.Cell], recipe: Recipe = demo.RECIPE) -> Path:
    """Return a model trained as the demo's was, on some of its cells alone."""
    parts = {
        "config": demo.CONFIG,
        "recipe": asdict(recipe),
        "drawings": [DEMO_DRAWINGS, drawn.TRAINING_SEED, file_sha256(Path(drawn.__file__))],
        "captions": [demo.TEMPLATES, demo.STYLE_TEMPLATES, demo.KINDS, drawn.SYNONYMS],
        "known": known,
    }

    def make(folder: Path) -> None:
        pictures = demo.render(known, DEMO_DRAWINGS, drawn.TRAINING_SEED)
        torch.manual_seed(recipe.seed)
        model = open_clip.CLIP(**demo.CONFIG["model_cfg"])
        train(
            model, pictures, partial(demo.captions, known=frozenset(known)), demo.normalise, recipe
        )
        save(model, demo.CONFIG, folder)

    return trained(cache, parts, make)


def cifar_clip(
    cache: Path, images: Path, known: Sequence[str], recipe: Recipe = CIFAR_RECIPE
) -> Path:
    """Return a CLIP trained on the CIFAR-10 images of some classes below a folder of class
    folders.
    """
    files = [path for name in known for path in sorted((images / name).iterdir())]
    content = hashlib.sha256(
        b"".join(bytes.fromhex(file_sha256(path)) for path in files)
    ).hexdigest()
    parts = {
        "config": CIFAR_CONFIG,
        "recipe": asdict(recipe),
        "images": content,
        "captions": [demo.TEMPLATES, CIFAR_SYNONYMS, CIFAR_KINDS],
        "known": known,
    }

    def make(folder: Path) -> None:
        pixels = torch.from_numpy(
            np.stack([np.asarray(Image.open(path).convert("RGB")) for path in files])
        )
        shown = torch.tensor([known.index(path.parent.name) for path in files])
        torch.manual_seed(recipe.seed)
        model = open_clip.CLIP(**CIFAR_CONFIG["model_cfg"])
        pictures = Pictures(pixels.permute(0, 3, 1, 2).contiguous(), known, shown)
        said = partial(cifar_captions, known=frozenset(known))
        train(model, pictures, said, demo.normalise, recipe)
        save(model, CIFAR_CONFIG, folder)

    return trained(cache, parts, make)


def cifar_captions(rng: np.random.Generator, known: Collection[str]) -> list[Caption]:
    """Return two captions of every class, one by its name and one by a synonym, and one of every
    kind.
    """
    named = [Caption(rng.choice(demo.TEMPLATES).format(name), [name]) for name in CIFAR]
    other = [
        Caption(rng.choice(demo.TEMPLATES).format(rng.choice(CIFAR_SYNONYMS[name])), [name])
        for name in CIFAR
    ]
    kinds = [
        Caption(rng.choice(demo.TEMPLATES).format(kind), names)
        for kind, names in CIFAR_KINDS.items()
    ]
    return [
        caption
        for caption in named + other + kinds
        if any(name in known for name in caption.groups)
    ]


def trained(cache: Path, parts: Mapping[str, Any], make: Callable[[Path], None]) -> Path:
    """Return the folder of a model that depends on `parts` alone; `make(folder)` trains it where
    it is not there yet.
    """
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    folder = cache / digest[:16]
    if not folder.is_dir():
        unfinished = folder.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        start = time.perf_counter()
        make(unfinished)
        facts = {
            "digest": digest,
            "seconds": time.perf_counter() - start,
            "threads": torch.get_num_threads(),
        }
        (unfinished / "recipe.json").write_text(
            json.dumps(facts | {"parts": parts}, indent=2) + "\n"
        )
        unfinished.rename(folder)
    return folder
