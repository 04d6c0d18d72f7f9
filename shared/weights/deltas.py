"""Deltas: what an erasure changed in a model, as a small file from which the published weights
are made again, bit by bit.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shared.files.checkpoints import (
    CONFIG_NAME,
    SAFETENSORS_NAME,
    Layout,
    find_layout,
    understood,
    weights_digest,
)
from shared.files.errors import invalid
from shared.weights.tensor_files import (
    NewTensor,
    TensorFiles,
    read_header,
    safetensors_chunks,
    write_safetensors,
)
from shared.weights.tensor_rules import Rule
from shared.weights.tensor_rules import tensors as made

FORMAT = "efface-delta-1"


@dataclass(frozen=True, slots=True)
class DeltaSize:
    """What a delta holds."""

    changed: int
    """Tensors."""
    of: int
    """Tensors of the model."""
    size_bytes: int


def write_delta(base: Path, result: Path, target: Path) -> DeltaSize:
    """Write what makes `result`, a published model's folder, of `base`, the folder or file that it
    was made from.

    Raises:
        InvalidRequest: one of them is no model that can be read here, or they have other tensors.
    """
    base_layout, old = _opened(base)
    result_layout, new = _opened(result)
    _check_alike(old, new)
    changed = {name: tensor for name, tensor in new.items() if not _same(old[name], tensor)}
    if not changed:
        raise invalid("the two models have the same weights; there is no delta")
    config = json.loads(result_layout.config.read_bytes()) if result_layout.config else {}
    about = {
        "format": FORMAT,
        "base": weights_digest(base_layout.weights),
        "result": weights_digest(result_layout.weights),
        "config": json.dumps(config, sort_keys=True),
    }
    write_safetensors(target, changed, about)
    return DeltaSize(len(changed), len(new), target.stat().st_size)


def apply_delta(delta: Path, base: Path, folder: Path) -> str:
    """Write the published model below `folder`, which must be empty or new, and return the digest
    of its weights.

    Raises:
        InvalidRequest: the delta is none, it was made of another base, or what comes out is not
            what was published. Nothing is left behind then.
    """
    about, changes = _metadata(delta), TensorFiles([delta])
    layout = _layout(base)
    if (digest := weights_digest(layout.weights)) != about["base"]:
        raise invalid(
            f"the delta was made from weights of the digest {about['base']}, and these have "
            f"{digest}; give those"
        )
    if folder.exists() and any(folder.iterdir()):
        raise invalid(f"{folder} is not empty; give another folder")
    tensors = dict(_tensors(layout))
    unknown = sorted(set(changes.infos) - set(tensors))
    if unknown:
        raise invalid(f"the delta holds {unknown[0]}, which the base has not")
    tensors |= made({name: Rule((name,)) for name in changes.infos}, changes.infos, changes)
    made_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    weights, config = folder / SAFETENSORS_NAME, folder / CONFIG_NAME
    written = hashlib.sha256()
    with weights.open("wb") as file:
        for chunk in safetensors_chunks(tensors)[1]:
            written.update(chunk)
            file.write(chunk)
    if written.hexdigest() != about["result"]:
        weights.unlink()
        if made_new:
            folder.rmdir()
        raise invalid(
            f"what comes out has the digest {written.hexdigest()}, not {about['result']}; the "
            "delta is damaged"
        )
    config.write_text(json.dumps(json.loads(about["config"]), indent=2))
    for path in layout.files:
        if (
            path != layout.config
            and path not in layout.weights
            and not path.name.endswith(".index.json")
        ):
            (folder / path.name).write_bytes(path.read_bytes())
    return written.hexdigest()


def _opened(path: Path) -> tuple[Layout, Mapping[str, NewTensor]]:
    layout = _layout(path)
    return layout, _tensors(layout)


def _layout(path: Path) -> Layout:
    layout = find_layout(path) if path.is_dir() else Layout(path.parent, None, (path,))
    if not layout.in_safetensors:
        raise invalid(
            f"{layout.weights[0].name} is no safetensors file, and is not opened here; give "
            "the "
            "weights as safetensors"
        )
    return layout


def _tensors(layout: Layout) -> Mapping[str, NewTensor]:
    """Return a model's tensors as open_clip has them in memory: under its names, in float32."""
    files = TensorFiles(layout.weights)
    if layout.config is None:
        return made({name: Rule((name,)) for name in files.infos}, files.infos, files, full=True)
    rules = understood(layout, files.infos).rules
    if rules is None:
        raise invalid(
            f"{CONFIG_NAME} names an architecture that is not known here; give model_cfg in "
            "its "
            "place"
        )
    return made(rules, files.infos, files, full=True)


def _check_alike(old: Mapping[str, NewTensor], new: Mapping[str, NewTensor]) -> None:
    other = sorted(set(old) ^ set(new)) or [
        name for name in new if old[name].info != new[name].info
    ]
    if other:
        raise invalid(f"the two are no models of one kind: they differ in {other[0]}")


def _same(one: NewTensor, other: NewTensor) -> bool:
    """Compare bits: -0.0 is not 0.0, and one NaN is another's equal only if it is the same."""
    return bool(np.array_equal(_bytes(one), _bytes(other)))


def _bytes(tensor: NewTensor) -> Any:  # noqa: ANN401 - an array
    return np.ascontiguousarray(tensor.make()).reshape(-1).view(np.uint8)


def _metadata(delta: Path) -> dict[str, str]:
    TensorFiles([delta])  # is it sound?
    with delta.open("rb") as file:

        def piece(start: int, end: int) -> bytes:
            file.seek(start)
            return file.read(end - start)

        about: dict[str, str] = read_header(piece)[0].get("__metadata__", {})
    if about.get("format") != FORMAT or not {"base", "result", "config"} <= about.keys():
        raise invalid(f"{delta.name} is no delta of Efface (format {FORMAT})")
    return about
