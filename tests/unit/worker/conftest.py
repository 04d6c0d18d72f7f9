"""Small CLIPs, loaded by the engine's own code."""

from pathlib import Path

import pytest
import torch

from tests.support.tiny import write_model
from worker.clip import Clip
from worker.clip.checkpoint import load_clip

torch.set_num_threads(1)  # of work this small, threads spend their time waiting for one another


@pytest.fixture(params=["vit", "resnet"])
def tiny(request: pytest.FixtureRequest, tmp_path: Path) -> Clip:
    """A random model of each kind of image tower."""
    folder = write_model(tmp_path / "model", request.param)
    return load_clip(f"local-dir:{folder}", scratch=tmp_path)
