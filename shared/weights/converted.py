"""A published model's folder as transformers' `CLIPModel`."""

import json
from pathlib import Path
from typing import Any

from shared.files.checkpoints import CONFIG_NAME, SAFETENSORS_NAME, find_layout, understood
from shared.files.errors import invalid
from shared.schemas.clip_config import ModelConfig
from shared.weights.tensor_files import TensorFiles, write_safetensors
from shared.weights.tensor_rules import tensors
from shared.weights.transformers_layout import (
    CONFIG,
    PROCESSOR,
    WEIGHTS,
    processor_config,
    rules_to_transformers,
    transformers_config,
)


def to_transformers(source: Path, target: Path) -> None:
    """Write a folder in open_clip's layout as transformers': `config.json`, `model.safetensors`,
    `preprocessor_config.json`.

    Raises:
        InvalidRequest: CLIPModel has no such model, or `source` is none in safetensors.
    """
    layout = find_layout(source)
    if layout.is_transformers or layout.config is None or not layout.in_safetensors:
        raise invalid(f"{source.name} is no folder of {CONFIG_NAME} and {SAFETENSORS_NAME}")
    read = TensorFiles(layout.weights)
    meant = understood(layout, read.infos)
    model = ModelConfig.model_validate(meant.config.get("model_cfg"))
    config = transformers_config(model)
    rules = rules_to_transformers(model)
    target.mkdir(parents=True, exist_ok=True)
    _write(target / CONFIG, config)
    _write(target / PROCESSOR, processor_config(model, meant.config.get("preprocess_cfg") or {}))
    write_safetensors(target / WEIGHTS, tensors(rules, read.infos, read), {"format": "pt"})
    for path in layout.files:
        if path not in (layout.config, *layout.weights) and path.name != PROCESSOR:
            (target / path.name).write_bytes(path.read_bytes())


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
