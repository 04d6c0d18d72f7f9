"""The architectures that open_clip knows by name, for processes that have no open_clip.

`clip_architectures.json` is what `open_clip.get_model_config` gives for every name in
`open_clip.list_models()` (3.3); a test compares the two."""

import json
from copy import deepcopy
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

_FILE = Path(__file__).with_name("clip_architectures.json")
QUICK_GELU = "-quickgelu"
"""What open_clip appends to the name of an architecture whose activation is QuickGELU, as in
OpenAI's models.
"""


@cache
def _known() -> dict[str, dict[str, Any]]:
    known: dict[str, dict[str, Any]] = json.loads(_FILE.read_bytes())
    return known


def known_config(name: str) -> dict[str, Any] | None:
    """Return the `model_cfg` of an architecture, None for a name that is not listed."""
    config = _known().get(name)
    return None if config is None else deepcopy(config)


def known_names() -> list[str]:
    """Return the names of all architectures."""
    return list(_known())


def quick_gelu_twin(name: str) -> str | None:
    """Return the name of the same architecture with QuickGELU, None where there is none."""
    twin = name + QUICK_GELU
    return twin if twin in _known() else None


def nearest(name: str) -> list[str]:
    """Return up to three known names that look like `name`."""
    lower = {known.lower(): known for known in known_names()}
    return [lower[found] for found in get_close_matches(name.lower(), lower, 3, 0.7)]
