"""Requests and uploads that are right, for tests to start from."""

import hashlib
import io
import json
import struct
import zipfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from shared.schemas.clip_config import ModelConfig
from shared.schemas.request import ErasureRequest
from shared.weights.clip_shapes import expected_tensors
from shared.weights.tensor_files import NewTensor, TensorInfo, write_safetensors


def names_only(clip: Path, *, metadata: Mapping[str, object] | None = None, **changes: Any) -> ErasureRequest:
    """Return the forgetting of a class by its name, in a model below one of the server's path roots."""
    body = {
        "model": {"source": f"local-dir:{clip}"},
        "target": {"type": "class", "class": "horse", "labels": ["horse", "dog", "cat"]},
        "method": {"name": "synthetic"},
        "metadata": {name: str(value) for name, value in (metadata or {}).items()},
    }
    return ErasureRequest.model_validate(body | changes)


def subgroup(clip: Path, *, forget: str, retain: str, **changes: Any) -> ErasureRequest:
    """Return the forgetting of a part of a class, shown by images."""
    body = {
        "model": {"source": f"local-dir:{clip}"},
        "target": {"type": "subgroup", "class": "horse", "subgroup": "sketch", "labels": ["horse", "dog"]},
        "method": {"name": "three_stage"},
        "data": {"forget": forget, "retain": retain},
    }
    return ErasureRequest.model_validate(body | changes)


def archive(path: Path, *classes: str, images: int = 1) -> Path:
    """Write a zip with `images` images in each class folder: the same bytes at any time."""
    with zipfile.ZipFile(path, "w") as file:
        for name in classes:
            for number in range(images):
                file.writestr(zipfile.ZipInfo(f"{name}/{number}.png"), png(number))
    return path


def folder(path: Path, *classes: str, images: int = 1) -> Path:
    """Write class folders with `images` images each."""
    for name in classes:
        (path / name).mkdir(parents=True)
        for number in range(images):
            (path / name / f"{number}.png").write_bytes(png(number))
    return path


def png(shade: int) -> bytes:
    """Return a small image."""
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (shade, shade, shade)).save(file, "PNG")
    return file.getvalue()


def safetensors(path: Path, values: bytes = bytes(8)) -> Path:
    """Write a sound safetensors file with one tensor of half floats."""
    entry = {"dtype": "F16", "shape": [len(values) // 2], "data_offsets": [0, len(values)]}
    header = json.dumps({"weight": entry}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + values)
    return path


SMALL_CLIP: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 8,
        "vision_cfg": {"layers": 2, "width": 8, "patch_size": 4, "image_size": 8, "head_width": 4},
        "text_cfg": {"layers": 1, "width": 8, "heads": 2, "context_length": 4, "vocab_size": 100},
    }
}
"""The config of a model of some kilobytes."""
UNKNOWN_ARCHITECTURE = "tiny-of-the-tests"
"""A name that open_clip does not have, under which weights are taken as they are."""


def small_clip(path: Path, value: float = 0) -> Path:
    """Write random weights for `SMALL_CLIP`, others for each `value`, as safetensors."""
    random = np.random.default_rng(int(1000 * value))
    expected = expected_tensors(ModelConfig.model_validate(SMALL_CLIP["model_cfg"]))
    infos = {name: TensorInfo("F32", shape) for name, shape in expected.shapes.items()}
    write_safetensors(path, {n: NewTensor(i, partial(_drawn, random, i.shape)) for n, i in infos.items()})
    return path


def _drawn(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return random.random(shape, np.float32)


def sha256(content: bytes) -> str:
    """Return the digest of bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()
