"""Files of a checkpoint, checked without torch: `open_clip_config.json`, and the headers of weights files."""

import json
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from shared.layouts import invalid
from shared.members import is_zip, shown, words, zip_parts
from shared.schemas.clip_config import MAX_PATCHES, ClipConfig
from shared.schemas.wording import invalid_request

CONFIG_NAME = "open_clip_config.json"
SAFETENSORS_NAME = "open_clip_model.safetensors"
PICKLE_NAME = "open_clip_pytorch_model.bin"
MAX_CONFIG_BYTES = 1024 * 1024

WEIGHT_TYPES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
"""Bytes of one weight, by the name that safetensors gives to its type."""
COUNTERS = ("num_batches_tracked", "position_ids", "attn_mask")
"""Last parts of the names of tensors that are no weights."""
MAX_TENSORS = 100_000


def read_config(path: Path) -> tuple[ClipConfig, dict[str, Any]]:
    """Return `open_clip_config.json`, as a schema and as it stands in the file.

    Raises:
        InvalidRequest: it is no JSON, or one of its fields is unknown, of another type or out of range.
    """
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise invalid(f"{CONFIG_NAME} has more than {MAX_CONFIG_BYTES} bytes")
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise invalid(f"{CONFIG_NAME} is not JSON: {words(error)}") from error
    try:
        config = ClipConfig.model_validate(content)
    except ValidationError as error:
        first = invalid_request(error, content).errors[0]
        raise invalid(f"{CONFIG_NAME}: {shown(first.pointer or '/')} {first.detail}") from error
    if config.architecture is None and config.model_cfg is None:
        raise invalid(f"{CONFIG_NAME} needs model_cfg, or the name of an architecture")
    if config.model_cfg is not None and config.model_cfg.vision_cfg.patches() > MAX_PATCHES:
        raise invalid(f"{CONFIG_NAME} cuts an image into more than {MAX_PATCHES} patches")
    return config, content


def check_safetensors(path: Path) -> None:
    """Check the header: tensors of weights side by side, from its end to the end of the file.

    Raises:
        InvalidRequest: it is damaged, holds no tensor, or one that is no weight.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            names = list(file.keys())
            found = {name: file.get_slice(name).get_dtype() for name in names}
    except (SafetensorError, OSError, ValueError) as error:
        raise invalid(f"{path.name} is not a sound safetensors file: {words(error)}") from error
    if not 0 < len(names) <= MAX_TENSORS:
        raise invalid(f"{path.name} holds {len(names)} tensors; at least one and at most {MAX_TENSORS} are taken")
    for name, kind in found.items():
        if kind not in WEIGHT_TYPES and name.rpartition(".")[2] not in COUNTERS:
            raise invalid(f"{path.name} holds {shown(name)} as {kind}; weights must be {', '.join(WEIGHT_TYPES)}")


def is_torch_file(path: Path) -> bool:
    """True for what `torch.save` writes since version 1.6: a zip with a pickle in it, which is not opened here.

    Raises:
        InvalidRequest: it is a zip, but a damaged one, or one of a torch file whose parts are compressed.
    """
    parts = zip_parts(path) if is_zip(path) else []
    if not any(PurePosixPath(part.filename).name == "data.pkl" for part in parts):
        return False
    if any(part.compress_type != zipfile.ZIP_STORED or part.file_size > path.stat().st_size for part in parts):
        raise invalid(f"{shown(path.name)} holds compressed parts, as torch.save never writes them; give safetensors")
    return True
