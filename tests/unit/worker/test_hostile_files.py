"""What a worker is given and cannot use ends as a `JobFailure` with a clear code, never as a fault of ours.

Archives pass the gateway's checks only if they are sound, but a path on the server is opened by the worker alone, and
what is wrong with weights shows only when they meet their architecture.
"""

import json
import pickle
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

from shared.errors import JobFailure
from shared.schemas.spec import DataSource
from shared.settings import get_settings
from tests.support.hostile import LIMITS
from tests.support.hostile.archives import PNG, member, photo, tarred, zipped
from tests.support.hostile.checkpoints import CONFIG_NAME, PICKLE_NAME, WEIGHTS_NAME, Payload
from tests.support.hostile.sets import ALL
from tests.support.tiny import write_model
from worker.clip.checkpoint import load_clip
from worker.data.archives import open_images

OF_THE_DOOR = {"over the limit"}
"""Archives that are refused for what only an upload has."""


@pytest.fixture(autouse=True)
def small_limits(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The limits that make small files hostile."""
    for name, value in LIMITS.items():
        monkeypatch.setenv(f"EFFACE_{name.upper()}", str(value))
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


def plain(image: object) -> torch.Tensor:
    return torch.zeros(3, 4, 4)


def read_all(path: Path, scratch: Path) -> None:
    images = open_images(DataSource(name="forget", uri=str(path)), scratch=scratch)
    for _ in images.batches(plain, 8):
        pass


@pytest.mark.parametrize("name", sorted(set(ALL) - OF_THE_DOOR))
def test_a_hostile_archive_is_an_invalid_data_set(name: str, tmp_path: Path) -> None:
    (tmp_path / "archive").write_bytes(ALL[name].build())

    with pytest.raises(JobFailure) as caught:
        read_all(tmp_path / "archive", tmp_path / "scratch")

    assert caught.value.code == "invalid_dataset"
    assert len(caught.value.detail) < 2000
    below = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert all(file == tmp_path / "archive" or file.is_relative_to(tmp_path / "scratch") for file in below)


@pytest.mark.parametrize(
    "content", [photo()[:600], b"no image", b"", member(b"")()], ids=["cut off", "text", "empty", "archive"]
)
def test_a_broken_image_in_a_folder_is_an_invalid_data_set(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "images" / "horse").mkdir(parents=True)
    (tmp_path / "images" / "horse" / "1.jpg").write_bytes(content)

    with pytest.raises(JobFailure, match=r"1\.jpg") as caught:
        read_all(tmp_path / "images", tmp_path / "scratch")

    assert caught.value.code == "invalid_dataset"


@pytest.mark.parametrize(
    "content",
    [zipped([("0.png", PNG)]), tarred([("0.png", PNG), ("0.cls", b"a"), ("0.PNG", PNG)]), b"none"],
    ids=["zip", "twins", "garbage"],
)
def test_a_broken_shard_in_a_folder_is_an_invalid_data_set(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "0.tar").write_bytes(content)

    with pytest.raises(JobFailure) as caught:
        read_all(tmp_path / "shards", tmp_path / "scratch")

    assert caught.value.code == "invalid_dataset"


@pytest.fixture(scope="module")
def sound_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("sound") / "model", "vit")


@pytest.fixture
def model(sound_model: Path, tmp_path: Path) -> Path:
    """A sound model to spoil."""
    return Path(shutil.copytree(sound_model, tmp_path / "model"))


Tensors = dict[str, torch.Tensor]


def drop(tensors: Tensors) -> None:
    del tensors["text_projection"]


def add(tensors: Tensors) -> None:
    tensors["backdoor.weight"] = torch.zeros(4)


def reshape(tensors: Tensors) -> None:
    tensors["text_projection"] = torch.zeros(7, 7)


def flatten(tensors: Tensors) -> None:
    tensors["visual.conv1.weight"] = tensors["visual.conv1.weight"].flatten()


def not_a_number(tensors: Tensors) -> None:
    tensors["logit_scale"] = torch.tensor(torch.nan)


def infinite(tensors: Tensors) -> None:
    tensors["visual.proj"][0, 0] = torch.inf


def overflowing(tensors: Tensors) -> None:
    tensors["visual.proj"].fill_(3e38)


def whole_numbers(tensors: Tensors) -> None:
    tensors["visual.proj"] = tensors["visual.proj"].to(torch.int32)


def empty(tensors: Tensors) -> None:
    tensors.clear()
    tensors["weight"] = torch.zeros(0)


SPOILT = [drop, add, reshape, flatten, not_a_number, infinite, overflowing, whole_numbers, empty]


@pytest.mark.parametrize("spoil", SPOILT)
@pytest.mark.parametrize("kind", ["safetensors", "pickle"])
def test_weights_that_do_not_fit_are_an_invalid_checkpoint(
    model: Path, tmp_path: Path, spoil: Callable[[Tensors], None], kind: str
) -> None:
    if kind == "pickle" and spoil is whole_numbers:
        pytest.skip("a pickle has no header to tell the type of its tensors")
    tensors = load_file(model / WEIGHTS_NAME)
    spoil(tensors)
    if kind == "safetensors":
        save_file(tensors, model / WEIGHTS_NAME)
    else:
        (model / WEIGHTS_NAME).unlink()
        torch.save(tensors, model / PICKLE_NAME)

    assert refused(model, tmp_path)


def refused(model: Path, tmp_path: Path) -> str:
    """Return what is said of a model that must not be loaded."""
    with pytest.raises(JobFailure) as caught:
        load_clip(f"local-dir:{model}", scratch=tmp_path / "scratch")
    assert caught.value.code == "invalid_checkpoint"
    assert len(caught.value.detail) < 1000
    return caught.value.detail


@pytest.mark.parametrize(
    ("tower", "changes"),
    [
        ("vision_cfg", {"width": 16_384, "layers": 256}),
        ("vision_cfg", {"width": 33}),
        ("vision_cfg", {"patch_size": 32, "image_size": 16}),
        ("vision_cfg", {"head_width": 64}),
        ("vision_cfg", {"timm_model_name": "no_such_model"}),
        ("vision_cfg", {"pool_type": "nonsense"}),
        ("text_cfg", {"vocab_size": 4_000_000, "width": 16_384}),
        ("text_cfg", {"heads": 7}),
        ("text_cfg", {"tokenizer_kwargs": {"trust_remote_code": True}}),
    ],
)
def test_a_config_of_another_model_is_an_invalid_checkpoint(
    model: Path, tmp_path: Path, tower: str, changes: dict[str, object]
) -> None:
    config = json.loads((model / CONFIG_NAME).read_text())
    config["model_cfg"][tower] |= changes
    (model / CONFIG_NAME).write_text(json.dumps(config))

    assert refused(model, tmp_path)


def test_a_config_that_describes_more_than_the_weights_takes_no_memory(model: Path, tmp_path: Path) -> None:
    config = json.loads((model / CONFIG_NAME).read_text())
    config["model_cfg"]["vision_cfg"] |= {"width": 16_384, "layers": 256}  # 3 TB
    (model / CONFIG_NAME).write_text(json.dumps(config))

    assert "says 256 image layers" in refused(model, tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[" * 100_000, b"\xff\xfe", b"[]", b"{}", b'{"architecture": "hf-hub:a/b"}']
)
def test_a_config_that_is_none_is_an_invalid_checkpoint(model: Path, tmp_path: Path, content: bytes) -> None:
    (model / CONFIG_NAME).write_bytes(content)

    assert refused(model, tmp_path)


def bare_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(Payload()))


def torch_pickle(path: Path) -> None:
    torch.save({"state_dict": Payload()}, path)


def forged_archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Payload()))
        archive.writestr("archive/version", b"3")


@pytest.mark.parametrize("write", [bare_pickle, torch_pickle, forged_archive])
def test_a_pickle_that_does_something_does_nothing(
    model: Path, tmp_path: Path, write: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = tmp_path / "ran"
    monkeypatch.setattr(Payload, "__reduce__", lambda _: (Path.touch, (ran,)))
    (model / WEIGHTS_NAME).unlink()
    write(model / PICKLE_NAME)

    assert refused(model, tmp_path)
    assert not ran.exists()


@pytest.mark.parametrize("cut", [0, 7, 8, 1000, -1])
def test_weights_that_are_cut_off_are_an_invalid_checkpoint(model: Path, tmp_path: Path, cut: int) -> None:
    content = (model / WEIGHTS_NAME).read_bytes()
    (model / WEIGHTS_NAME).write_bytes(content[:cut])

    assert refused(model, tmp_path)


def test_the_model_that_was_spoilt_is_sound(model: Path, tmp_path: Path) -> None:
    assert load_clip(f"local-dir:{model}", scratch=tmp_path / "scratch").image_size == 32


def test_every_architecture_that_open_clip_knows_passes_the_schema() -> None:
    from shared.schemas.clip_config import ClipConfig

    names = open_clip.list_models()
    for name in names:
        config = ClipConfig.model_validate({"architecture": name, "model_cfg": open_clip.get_model_config(name)})
        assert config.name() == name
    assert len(names) > 100
