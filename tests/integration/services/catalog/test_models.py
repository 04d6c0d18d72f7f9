"""Checkpoints are checked before they are taken, without a line of them being unpickled."""

import hashlib
import io
import json
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from services.catalog import models
from shared.errors import InvalidRequest, NotFound
from shared.ids import new_id
from shared.ports.object_storage import Storage
from shared.schemas.model import ModelRegistration
from shared.schemas.model_reference import ModelReference
from shared.settings import Settings
from tests.support import requests

CONFIG = json.dumps(requests.SMALL_CLIP)


class Bomb:
    """Makes a mark when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return pytest.fail, ("it was unpickled",)


@pytest.fixture
def store(storage: Storage, tenant: str, tmp_path: Path) -> Callable[..., dict[str, object]]:
    """Stores an uploaded file."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()

    def store_file(path: Path, architecture: str | None = None) -> dict[str, object]:
        checked = models.check_upload(path, filename=path.name, architecture=architecture, scratch=scratch)
        return models.store(storage, tenant, new_id("mdl"), checked)

    return store_file


def packed(path: Path, files: dict[str, bytes]) -> Path:
    """Write a zip or tar, as the name says."""
    if path.suffix != ".tgz":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    else:
        with tarfile.open(path, "w:gz") as archive_file:
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive_file.addfile(member, io.BytesIO(content))
    return path


def torch_file(path: Path) -> Path:
    """Write what `torch.save` would, with a pickle that tells when it is opened."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Bomb()))
        archive.writestr("archive/version", b"3")
    return path


@pytest.mark.parametrize("suffix", [".zip", ".tgz"])
@pytest.mark.parametrize("wrapped", ["", "clip/"])
def test_a_folder_in_open_clips_layout(
    store: Callable[..., dict[str, object]], storage: Storage, tmp_path: Path, suffix: str, wrapped: str
) -> None:
    weights = requests.small_clip(tmp_path / "weights.safetensors").read_bytes()
    files = {"open_clip_config.json": CONFIG.encode(), "open_clip_model.safetensors": weights}
    extra = {"tokenizer.json": b"{}", "README.md": b"not needed"}
    path = packed(tmp_path / f"clip{suffix}", {wrapped + name: content for name, content in (files | extra).items()})
    values = store(path)
    prefix = str(values["reference"]).removeprefix("storage:")
    assert {o.key.rpartition("/")[2] for o in storage.list(prefix)} == {*files, "tokenizer.json"}
    assert storage.get(f"{prefix}/open_clip_model.safetensors") == weights
    assert values["digest"] == hashlib.sha256(weights).hexdigest()
    assert (values["architecture"], values["size_bytes"]) == ("ViT/4 8x2 @8", len(weights))


def test_bare_weights_need_an_architecture(
    store: Callable[..., dict[str, object]], storage: Storage, tmp_path: Path
) -> None:
    path = requests.safetensors(tmp_path / "model.safetensors")
    with pytest.raises(InvalidRequest, match="/architecture"):
        store(path)
    values = store(path, architecture=requests.UNKNOWN_ARCHITECTURE)
    prefix = str(values["reference"]).removeprefix("storage:")
    assert json.loads(storage.get(f"{prefix}/open_clip_config.json")) == {"architecture": requests.UNKNOWN_ARCHITECTURE}


def test_a_torch_file_is_stored_unopened(
    store: Callable[..., dict[str, object]], storage: Storage, tmp_path: Path
) -> None:
    values = store(torch_file(tmp_path / "model.pt"), architecture="RN50")
    prefix = str(values["reference"]).removeprefix("storage:")
    assert storage.size(f"{prefix}/open_clip_pytorch_model.bin") == values["size_bytes"]


def broken(folder: Path) -> dict[str, Path]:
    """Write what must not be taken."""
    sound = requests.safetensors(folder / "sound").read_bytes()
    layout = {"open_clip_config.json": CONFIG.encode(), "open_clip_model.safetensors": sound}
    cases = {
        "an old pickle.pt": pickle.dumps({"weight": 1}),
        "cut off.safetensors": sound[:-1],
        "longer than said.safetensors": sound + b"more",
        "no header.safetensors": b"123",
        "huge header.safetensors": struct.pack("<Q", 1 << 60) + b"{}",
        "no json.safetensors": struct.pack("<Q", 4) + b"{{{{",
        "deep json.safetensors": struct.pack("<Q", 200_000) + b"[" * 200_000,
        "no tensors.safetensors": struct.pack("<Q", 2) + b"{}",
        "an image.png": requests.png(0),
        "cut off.zip": packed(folder / "whole.zip", layout).read_bytes()[:-30],
    }
    files = {name: folder / name for name in cases}
    for name, content in cases.items():
        files[name].write_bytes(content)
    archives = {
        "no config.zip": {"open_clip_model.safetensors": sound},
        "no weights.tgz": {"open_clip_config.json": CONFIG.encode()},
        "a config of something else.zip": layout | {"open_clip_config.json": b"[1, 2]"},
        "huge config.tgz": layout | {"open_clip_config.json": bytes(2_000_000)},
        "a bomb.zip": layout | {"open_clip_model.safetensors": bytes(50_000_000)},
        "a pickle in disguise.zip": {
            "open_clip_config.json": CONFIG.encode(),
            "open_clip_pytorch_model.bin": pickle.dumps(Bomb()),
        },
    }
    return files | {name: packed(folder / name, content) for name, content in archives.items()}


def test_what_is_broken_is_refused_and_leaves_nothing(
    store: Callable[..., dict[str, object]], storage: Storage, tmp_path: Path
) -> None:
    for name, path in broken(tmp_path).items():
        with pytest.raises(InvalidRequest) as caught:
            store(path, architecture="ViT-B-32")
        assert [error.pointer for error in caught.value.errors] == ["/file"], name
    assert storage.list("tenants") == []


def test_models_are_their_tenants_own(
    session: Session, tenant: str, stranger: str, settings: Settings, clip: Path
) -> None:
    registration = ModelRegistration(name="clip", model=ModelReference(source=f"local-dir:{clip}"))
    model = models.register(session, tenant, registration, settings)
    assert models.get(session, tenant, model.id) == model
    assert list(models.list_page(session, tenant).data) == [model]
    assert list(models.list_page(session, stranger).data) == []
    with pytest.raises(NotFound):
        models.get(session, stranger, model.id)
