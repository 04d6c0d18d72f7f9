"""What the gateway, which has no torch, says of a checkpoint from its names and headers."""

import copy
import json
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shared.errors import InvalidRequest
from shared.files.checkpoints import CONFIG_NAME, PICKLE_NAME, SAFETENSORS_NAME
from shared.files.uploaded_checkpoints import CheckpointFiles, unpack_checkpoint
from shared.schemas.clip_config import ModelConfig
from shared.weights.architectures import known_config
from shared.weights.clip_shapes import expected_tensors
from shared.weights.tensor_files import NewTensor, TensorInfo, write_safetensors
from shared.weights.transformers_layout import rules_to_transformers, transformers_config
from tests.support.requests import SMALL_CLIP, small_clip

Shapes = dict[str, tuple[int, ...]]
MODEL = SMALL_CLIP["model_cfg"]


def shapes(model: Mapping[str, Any] = MODEL) -> Shapes:
    return dict(expected_tensors(ModelConfig.model_validate(model)).shapes)


def write(path: Path, tensors: Shapes, dtype: str = "F16") -> bytes:
    infos = {name: TensorInfo(dtype, shape) for name, shape in tensors.items()}
    write_safetensors(path, {n: NewTensor(i, partial(np.zeros, i.shape, np.float16)) for n, i in infos.items()})
    return path.read_bytes()


def taken(tmp_path: Path, files: Mapping[str, bytes], architecture: str | None = None) -> CheckpointFiles:
    """Upload an archive of these files."""
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    found = unpack_checkpoint(tmp_path / "model.zip", "model.zip", architecture, scratch)
    assert sorted(path.name for path in scratch.iterdir()) == found.unpacked
    return found


def refusal(tmp_path: Path, files: Mapping[str, bytes]) -> str:
    with pytest.raises(InvalidRequest) as caught:
        taken(tmp_path, files)
    assert len(caught.value.errors[0].detail) <= 300
    return caught.value.errors[0].detail


CONFIG = json.dumps(SMALL_CLIP).encode()


@pytest.mark.parametrize(
    "name", [SAFETENSORS_NAME, "model.safetensors", "open_clip_pytorch_model.safetensors", "epoch_3.safetensors"]
)
@pytest.mark.parametrize("wrapped", ["", "my-clip/"])
def test_every_name_is_stored_under_one(tmp_path: Path, name: str, wrapped: str) -> None:
    weights = write(tmp_path / "w", shapes())

    found = taken(tmp_path, {wrapped + CONFIG_NAME: CONFIG, wrapped + name: weights, "optimizer.pt": b"none of it"})

    assert (found.weights, found.itself) == ([SAFETENSORS_NAME], None)
    assert (tmp_path / "scratch" / SAFETENSORS_NAME).read_bytes() == weights


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.module._orig_mod."])
def test_a_prefix_is_no_error(tmp_path: Path, prefix: str) -> None:
    weights = write(tmp_path / "w", {prefix + name: shape for name, shape in shapes().items()})

    assert taken(tmp_path, {CONFIG_NAME: CONFIG, SAFETENSORS_NAME: weights}).warnings == []


def test_tensors_beside_the_model_are_left_out_with_a_warning(tmp_path: Path) -> None:
    weights = write(tmp_path / "w", {f"model.{n}": s for n, s in shapes().items()} | {"loss.scale": (1,)})

    (warning,) = taken(tmp_path, {CONFIG_NAME: CONFIG, SAFETENSORS_NAME: weights}).warnings

    assert "1 tensors beside it are left out (loss.scale)" in warning["detail"]


def changed(**fields: Any) -> dict[str, Any]:
    model = copy.deepcopy(MODEL)
    for name, value in fields.items():
        if isinstance(value, dict):
            model[name] |= value
        else:
            model[name] = value
    return model


MISFITS: dict[str, tuple[Callable[[], Shapes], str]] = {
    "layers of the text": (
        lambda: shapes(changed(text_cfg={"layers": 2})),
        "open_clip_config.json says 1 text layers (text_cfg.layers), the weights have 2",
    ),
    "layers of the image": (
        lambda: shapes(changed(vision_cfg={"layers": 3})),
        "open_clip_config.json says 2 image layers (vision_cfg.layers), the weights have 3",
    ),
    "a ResNet": (
        lambda: shapes(changed(vision_cfg={"layers": [1, 1, 1, 1], "image_size": 32})),
        "the image tower of the weights is a ResNet, but open_clip_config.json describes a ViT",
    ),
    "image size": (
        lambda: shapes(changed(vision_cfg={"image_size": 16})),
        "visual.positional_embedding has the shape [17, 8] in the weights and [5, 8] after open_clip_config.json",
    ),
    "logit_bias": (lambda: shapes(changed(init_logit_bias=-10.0)), 'add "init_logit_bias": -10 to model_cfg'),
    "one missing": (
        lambda: {n: s for n, s in shapes().items() if n != "visual.proj"},
        "lack 1 of its tensors (visual.proj)",
    ),
    "one more": (lambda: shapes() | {"extra.weight": (2,)}, "hold 1 that it does not know (extra.weight)"),
    "transformers": (
        lambda: dict.fromkeys(rules_to_transformers(ModelConfig.model_validate(MODEL)), (2,)),
        "have the tensor names of transformers",
    ),
    "no CLIP": (lambda: {"encoder.weight": (2, 2)}, "hold no tensor that open_clip_config.json has"),
    "two models": (
        lambda: {f"{at}.{n}": s for n, s in shapes().items() for at in ("model", "ema")},
        "hold several models, below 'ema.', 'model.'",
    ),
}


@pytest.mark.parametrize("kind", MISFITS)
def test_what_does_not_fit_is_said_at_once(tmp_path: Path, kind: str) -> None:
    make, says = MISFITS[kind]
    weights = write(tmp_path / "w", make())

    assert says in refusal(tmp_path, {CONFIG_NAME: CONFIG, SAFETENSORS_NAME: weights})


def test_names_in_a_sentence_are_whole(tmp_path: Path) -> None:
    known = shapes()
    weights = write(tmp_path / "w", {n: s for n, s in known.items() if "attn" not in n})

    said = refusal(tmp_path, {CONFIG_NAME: CONFIG, SAFETENSORS_NAME: weights})

    names = said[said.index("tensors (") + len("tensors (") : said.index(" and ")].split(", ")
    assert names and set(names) <= set(known)


@pytest.mark.parametrize(
    "names", [("epoch_1.safetensors", "epoch_2.safetensors"), (SAFETENSORS_NAME, "last.pt"), ("a.pt", "b.pth")]
)
def test_of_several_weights_none_is_taken(tmp_path: Path, names: tuple[str, ...]) -> None:
    weights = write(tmp_path / "w", shapes())

    said = refusal(tmp_path, {CONFIG_NAME: CONFIG} | dict.fromkeys(names, weights))

    assert "several weights files" in said and all(name in said for name in names)


def sharded(tmp_path: Path, tensors: Shapes) -> dict[str, bytes]:
    parts = [dict(list(tensors.items())[::2]), dict(list(tensors.items())[1::2])]
    names = [f"model-{n:05}-of-00002.safetensors" for n in (1, 2)]
    files = {name: write(tmp_path / name, part) for name, part in zip(names, parts, strict=True)}
    places = {tensor: name for name, part in zip(names, parts, strict=True) for tensor in part}
    return files | {"model.safetensors.index.json": json.dumps({"weight_map": places}).encode()}


def test_shards_are_joined_and_all_must_be_there(tmp_path: Path) -> None:
    files = {CONFIG_NAME: CONFIG} | sharded(tmp_path, shapes())
    found = taken(tmp_path, files)
    assert found.weights == ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]

    del files["model-00002-of-00002.safetensors"]
    (tmp_path / "second").mkdir()
    assert "which the folder lacks" in refusal(tmp_path / "second", files)


CLIP = ModelConfig.model_validate(changed(text_cfg={"vocab_size": 49408, "context_length": 77}, quick_gelu=True))


def clip_model(tmp_path: Path, *, shards: bool = False) -> dict[str, bytes]:
    """Return the files of a CLIPModel."""
    rules = rules_to_transformers(CLIP)
    own = {name: TensorInfo("F16", shape) for name, shape in expected_tensors(CLIP).shapes.items()}
    tensors = {name: rule.info(own).shape for name, rule in rules.items()}
    config = {"config.json": json.dumps(transformers_config(CLIP)).encode()}
    weights = sharded(tmp_path, tensors) if shards else {"model.safetensors": write(tmp_path / "w", tensors)}
    return config | weights


@pytest.mark.parametrize("shards", [False, True])
@pytest.mark.parametrize("wrapped", ["", "0_CLIPModel/"])
def test_a_clip_model_of_transformers_is_taken(tmp_path: Path, shards: bool, wrapped: str) -> None:
    files = {wrapped + name: content for name, content in clip_model(tmp_path, shards=shards).items()}
    beside = {"modules.json": b"[]", "1_Dense/config.json": b'{"in_features": 8}', "1_Dense/model.safetensors": b"x"}

    found = taken(tmp_path, files | (beside if wrapped else {}))

    assert found.architecture == "ViT/4 8x2 @8"
    assert "config.json" in found.unpacked and len(found.weights) == 1 + shards


def test_another_model_of_transformers_is_named(tmp_path: Path) -> None:
    files = clip_model(tmp_path) | {"config.json": b'{"model_type": "siglip"}'}

    assert "config.json is of a 'siglip' model" in refusal(tmp_path, files)


def test_a_tokenizer_that_is_missing_is_named(tmp_path: Path) -> None:
    config = json.dumps({"model_cfg": changed(text_cfg={"hf_tokenizer_name": "timm/ViT-B-16-SigLIP"})}).encode()
    weights = small_clip(tmp_path / "w.safetensors").read_bytes()

    assert "its tokenizer is that of timm/ViT-B-16-SigLIP" in refusal(
        tmp_path, {CONFIG_NAME: config, SAFETENSORS_NAME: weights}
    )
    (tmp_path / "second").mkdir()
    found = taken(tmp_path / "second", {CONFIG_NAME: config, SAFETENSORS_NAME: weights, "tokenizer.json": b"{}"})
    assert "tokenizer.json" in found.unpacked


def test_a_tower_of_timm_has_its_own_name_and_only_the_rest_is_checked(tmp_path: Path) -> None:
    model = changed(vision_cfg={"timm_model_name": "vit_base_patch16_siglip_224"})
    tensors = {n: s for n, s in shapes().items() if not n.startswith("visual.")} | {"visual.trunk.cls_token": (1,)}
    config = json.dumps({"model_cfg": model}).encode()

    found = taken(tmp_path, {CONFIG_NAME: config, SAFETENSORS_NAME: write(tmp_path / "w", tensors)})
    assert found.architecture == "vit_base_patch16_siglip_224"

    (tmp_path / "second").mkdir()
    del tensors["token_embedding.weight"]
    said = refusal(tmp_path / "second", {CONFIG_NAME: config, SAFETENSORS_NAME: write(tmp_path / "w", tensors)})
    assert "token_embedding.weight" in said


def bare(tmp_path: Path, filename: str, architecture: str | None) -> CheckpointFiles:
    scratch = tmp_path / "scratch"
    scratch.mkdir(exist_ok=True)
    return unpack_checkpoint(tmp_path / filename, filename, architecture, scratch)


def header_only(path: Path, name: str, buffers: Shapes | None = None) -> None:
    """Write weights of a known architecture with values that take no room on the disk."""
    described = known_config(name)
    assert described is not None
    places, offset = {}, 0
    for tensor, shape in (shapes(described) | (buffers or {})).items():
        size = 2 * int(np.prod(shape))
        places[tensor] = {"dtype": "F16", "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    head = json.dumps(places).encode()
    with path.open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        file.truncate(8 + len(head) + offset)


def test_an_activation_that_nobody_can_see_is_asked_for(tmp_path: Path) -> None:
    header_only(tmp_path / "x.safetensors", "RN50")
    (warning,) = bare(tmp_path, "x.safetensors", "RN50").warnings
    assert warning["pointer"] == "/architecture"
    assert "give RN50-quickgelu" in warning["detail"]
    assert bare(tmp_path, "x.safetensors", "RN50-quickgelu").warnings == []

    header_only(tmp_path / "x.safetensors", "RN50", {"input_resolution": (), "context_length": (), "vocab_size": ()})
    (warning,) = bare(tmp_path, "x.safetensors", "RN50").warnings
    assert "is OpenAI's, so that it is loaded as RN50-quickgelu" in warning["detail"]


def test_the_right_architecture_is_named(tmp_path: Path) -> None:
    header_only(tmp_path / "x.safetensors", "RN101")

    with pytest.raises(InvalidRequest, match="are not those of RN50, but fit RN101"):
        bare(tmp_path, "x.safetensors", "RN50")


def test_a_name_that_open_clip_does_not_have_gets_a_warning_with_the_nearest(tmp_path: Path) -> None:
    small_clip(tmp_path / "x.safetensors")

    (warning,) = bare(tmp_path, "x.safetensors", "VIT-B32").warnings

    assert "ViT-B-32" in warning["detail"]


def torch_zip(path: Path, *names: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(f"archive/{name}", b"x", zipfile.ZIP_DEFLATED if "code" in name else zipfile.ZIP_STORED)


def test_openais_own_file_needs_no_architecture(tmp_path: Path) -> None:
    parts = ("data.pkl", "constants.pkl", "code/__torch__/clip.py", "data/0", "version")
    torch_zip(tmp_path / "ViT-B-32.pt", *parts)
    found = bare(tmp_path, "ViT-B-32.pt", None)
    assert (found.architecture, found.itself, found.unpacked, found.warnings) == (
        "ViT-B-32-quickgelu",
        PICKLE_NAME,
        [],
        [],
    )

    torch_zip(tmp_path / "mine.pt", *parts)
    assert bare(tmp_path, "mine.pt", None).architecture == "CLIP (OpenAI)"

    torch_zip(tmp_path / "plain.pt", "data.pkl", "version")
    with pytest.raises(InvalidRequest, match="/architecture"):
        bare(tmp_path, "plain.pt", None)


def test_the_config_of_a_text_tower_that_is_missing_is_named(tmp_path: Path) -> None:
    text = {"hf_model_name": "xlm-roberta-base", "hf_tokenizer_name": "xlm-roberta-base"}
    tensors = {n: s for n, s in shapes().items() if n.startswith(("visual.", "logit_"))} | {"text.proj.weight": (8, 8)}
    files = {
        CONFIG_NAME: json.dumps({"model_cfg": MODEL | {"custom_text": True, "text_cfg": text}}).encode(),
        SAFETENSORS_NAME: write(tmp_path / "w", tensors),
        "tokenizer.json": b"{}",
    }
    assert "its text tower is that of xlm-roberta-base" in refusal(tmp_path, files)

    (tmp_path / "second").mkdir()
    found = taken(tmp_path / "second", files | {"config.json": b'{"model_type": "xlm-roberta"}'})
    assert found.architecture == "ViT/4 8x2 @8 + xlm-roberta-base"
    assert {"config.json", "tokenizer.json"} <= set(found.unpacked)
