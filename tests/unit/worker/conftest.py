"""Small CLIPs, loaded by the engine's own code."""

from pathlib import Path

import pytest

from tests.support.tiny import write_model
from worker.clip import Clip
from worker.clip.checkpoint import load_clip


@pytest.fixture(params=["vit", "resnet"])
def tiny(request: pytest.FixtureRequest, tmp_path: Path) -> Clip:
    """A random model of each kind of image tower."""
    folder = write_model(tmp_path / "model", request.param)
    return load_clip(f"local-dir:{folder}", scratch=tmp_path)
