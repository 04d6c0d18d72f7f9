"""Deltas: what an erasure changed, and the published weights made again of it, bit by bit."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from api.cli import app
from shared.errors import InvalidRequest
from shared.files.checkpoints import PICKLE_NAME, SAFETENSORS_NAME
from shared.files.image_archives import file_sha256
from shared.weights.deltas import apply_delta, write_delta
from tests.support.tiny import write_model
from tests.unit.worker.test_transformers_layout import write_transformers
from worker.clip.checkpoint import load_clip, save_clip

CHANGED = ("visual.proj", "text_projection")


def published(base: Path, folder: Path) -> str:
    """Change two maps of a model as an erasure would, publish it, and return the digest."""
    clip = load_clip(f"local-dir:{base}", scratch=folder.with_name("scratch"))
    with torch.no_grad():
        for name in CHANGED:
            clip.model.get_parameter(name).mul_(1.5)
    return save_clip(clip, folder)


def half(base: Path) -> None:
    """Give the weights in half precision, below a prefix."""
    tensors = {f"module.{name}": tensor.half() for name, tensor in load_file(base / SAFETENSORS_NAME).items()}
    save_file(tensors, base / SAFETENSORS_NAME)


@pytest.mark.parametrize("kind", ["open_clip", "half", "transformers"])
def test_a_delta_and_its_base_make_the_published_weights(tmp_path: Path, kind: str) -> None:
    base = tmp_path / "base"
    if kind == "transformers":
        write_transformers(base)
    else:
        write_model(base, "vit")
    if kind == "half":
        half(base)
    digest = published(base, tmp_path / "published")

    size = write_delta(base, tmp_path / "published", tmp_path / "delta")
    made = apply_delta(tmp_path / "delta", base, tmp_path / "again")

    assert made == digest == file_sha256(tmp_path / "again" / SAFETENSORS_NAME)
    assert size.changed == len(CHANGED)
    assert size.size_bytes < 0.01 * (tmp_path / "published" / SAFETENSORS_NAME).stat().st_size
    assert sorted(load_file(tmp_path / "delta")) == sorted(CHANGED)
    assert load_clip(f"local-dir:{tmp_path / 'again'}", scratch=tmp_path / "second").image_size == 32


def test_another_base_a_damaged_delta_and_a_full_folder_are_refused(tmp_path: Path) -> None:
    base, other = write_model(tmp_path / "base", "vit"), write_model(tmp_path / "other", "vit", seed=1)
    published(base, tmp_path / "published")
    write_delta(base, tmp_path / "published", tmp_path / "delta")

    with pytest.raises(InvalidRequest, match="was made from weights of the digest"):
        apply_delta(tmp_path / "delta", other, tmp_path / "again")
    content = bytearray((tmp_path / "delta").read_bytes())
    content[-1] ^= 1
    (tmp_path / "damaged").write_bytes(content)
    with pytest.raises(InvalidRequest, match="the delta is damaged"):
        apply_delta(tmp_path / "damaged", base, tmp_path / "again")
    assert not (tmp_path / "again").exists()
    with pytest.raises(InvalidRequest, match="is not empty"):
        apply_delta(tmp_path / "delta", base, other)
    with pytest.raises(InvalidRequest, match="is no delta of Efface"):
        apply_delta(base / SAFETENSORS_NAME, base, tmp_path / "again")
    with pytest.raises(InvalidRequest, match="there is no delta"):
        write_delta(base, base, tmp_path / "nothing")
    with pytest.raises(InvalidRequest, match="are no models of one kind"):
        write_delta(base, write_model(tmp_path / "resnet", "resnet"), tmp_path / "nothing")
    shutil.copy(base / SAFETENSORS_NAME, other / PICKLE_NAME)
    (other / SAFETENSORS_NAME).unlink()
    with pytest.raises(InvalidRequest, match="is no safetensors file"):
        write_delta(other, base, tmp_path / "nothing")


def test_the_commands(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base", "vit")
    digest = published(base, tmp_path / "published")

    def run(*arguments: str | Path) -> str:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert result.exit_code == 0, result.output
        return result.output.replace("\n", "")

    assert "2 of " in run("diff", base, tmp_path / "published", "--out", tmp_path / "delta")
    assert run("apply", tmp_path / "delta", base, "--out", tmp_path / "again") == digest
    run("convert", tmp_path / "again", "--out", tmp_path / "hf")
    assert load_file(tmp_path / "hf" / "model.safetensors").keys() >= {"visual_projection.weight", "logit_scale"}
