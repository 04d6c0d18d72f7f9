"""Checkpoints as people have them: each loads as the model that it is, or is refused in one sentence."""

import json
import shutil
import zipfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

from shared.errors import JobFailure
from tests.support.tiny import write_model
from worker.clip.checkpoint import load_clip, read_folder
from worker.clip.model import Clip

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:Converting a tensor"),
]
Tensors = dict[str, torch.Tensor]
CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("sound") / "model", "vit")


@pytest.fixture(scope="module")
def tensors(sound: Path) -> Tensors:
    return load_file(sound / WEIGHTS)


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    """A folder with the config alone."""
    place = tmp_path / "model"
    place.mkdir()
    shutil.copy(sound / CONFIG, place)
    return place


def loaded(folder: Path, scratch: Path) -> Clip:
    return load_clip(f"local-dir:{folder}", scratch=scratch / "scratch")


def check_same(clip: Clip, tensors: Tensors) -> None:
    found = clip.model.state_dict()
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name].float()) for name in tensors)


def read(folder: Path, scratch: Path) -> Tensors:
    """Return the tensors of a checkpoint as they are handed to open_clip: making a model of them takes most of the time."""
    return load_file(read_folder(folder, scratch / "scratch").weights)


def check_equal(found: Tensors, tensors: Tensors) -> None:
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


def refusal(folder: Path, scratch: Path) -> str:
    with pytest.raises(JobFailure) as caught:
        loaded(folder, scratch)
    assert caught.value.code == "invalid_checkpoint"
    assert len(caught.value.detail) <= 310
    assert str(folder.parent) not in caught.value.detail
    return caught.value.detail


def renamed(tensors: Tensors, before: str) -> Tensors:
    return {before + name: tensor for name, tensor in tensors.items()}


PREFIXES = ["module.", "_orig_mod.", "model.", "module._orig_mod.", "_orig_mod.module.", "clip_model.net."]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_prefix_before_all_names_is_taken_off(folder: Path, tensors: Tensors, tmp_path: Path, prefix: str) -> None:
    torch.save(renamed(tensors, prefix), folder / "open_clip_pytorch_model.bin")
    from_pickle = read(folder, tmp_path)
    (folder / "open_clip_pytorch_model.bin").unlink()
    save_file(renamed(tensors, prefix), folder / WEIGHTS)

    check_equal(from_pickle, tensors)
    check_equal(read(folder, tmp_path), tensors)


def test_a_part_that_was_compiled_or_parallel_alone_is_found(folder: Path, tensors: Tensors, tmp_path: Path) -> None:
    part = {
        n.replace("visual.", "visual._orig_mod.").replace("transformer.", "transformer.module."): t
        for n, t in tensors.items()
    }
    save_file(part, folder / WEIGHTS)

    check_same(loaded(folder, tmp_path), tensors)


OPTIMIZER = {"state": {0: {"exp_avg": torch.zeros(3), "step": torch.tensor(1.0)}}, "param_groups": [{"lr": 0.1}]}
WRAPPED: dict[str, Callable[[Tensors], Any]] = {
    "state_dict": lambda t: {"epoch": 3, "state_dict": t, "optimizer": OPTIMIZER},
    "state_dict of DDP": lambda t: {
        "epoch": 3,
        "name": "x",
        "state_dict": renamed(t, "module."),
        "optimizer": OPTIMIZER,
    },
    "model": lambda t: {"model": t, "optimizer": OPTIMIZER, "iter_num": 7},
    "module": lambda t: {"module": t, "lr_scheduler": None, "global_steps": 3},
    "model_state_dict": lambda t: {"model_state_dict": renamed(t, "_orig_mod."), "optimizer_state_dict": OPTIMIZER},
    "nested": lambda t: {"checkpoint": {"model": {"state_dict": t}}, "metrics": {"loss": torch.tensor(1.0)}},
    "Lightning": lambda t: {
        "state_dict": renamed(t, "model.") | {"loss.scale": torch.ones(1)},
        "callbacks": {},
        "epoch": 1,
    },
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_the_one_mapping_of_tensors_in_a_training_checkpoint_is_found(
    folder: Path, tensors: Tensors, tmp_path: Path, kind: str
) -> None:
    torch.save(WRAPPED[kind](tensors), folder / "epoch_3.pt")

    check_equal(read(folder, tmp_path), tensors)


def test_of_two_models_in_one_checkpoint_none_is_taken(folder: Path, tensors: Tensors, tmp_path: Path) -> None:
    torch.save({"model": tensors, "ema": tensors}, folder / "epoch_3.pt")
    assert "several models, below 'model', 'ema'" in refusal(folder, tmp_path)
    (folder / "epoch_3.pt").unlink()

    save_file(
        renamed(tensors, "model.") | {n: t.clone() for n, t in renamed(tensors, "ema.").items()}, folder / WEIGHTS
    )
    assert "several models" in refusal(folder, tmp_path / "second")


def test_what_is_more_than_weights_says_what_to_give(folder: Path, tensors: Tensors, tmp_path: Path) -> None:
    torch.save({"state_dict": tensors, "args": Namespace(lr=1)}, folder / "epoch_3.pt")

    assert "holds more than weights" in refusal(folder, tmp_path)


NAMES = ["model.safetensors", "open_clip_pytorch_model.safetensors", "pytorch_model.bin", "weights.pth", "epoch_7.pt"]


@pytest.mark.parametrize("name", NAMES)
def test_every_name_of_weights_is_taken(folder: Path, tensors: Tensors, tmp_path: Path, name: str) -> None:
    if name.endswith(".safetensors"):
        save_file(tensors, folder / name)
    else:
        torch.save(tensors, folder / name)
    (folder / "optimizer.pt").write_bytes(b"no weights")

    check_equal(read(folder, tmp_path), tensors)


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (("epoch_1.pt", "epoch_2.pt"), None),
        (("open_clip_model.safetensors", "epoch_2.pt"), None),
        (("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors"), None),
        (("a.safetensors", "b.safetensors"), None),
        (("open_clip_model.safetensors", "open_clip_pytorch_model.bin"), "open_clip_model.safetensors"),
        (("open_clip_model.safetensors", "model.safetensors", "pytorch_model.bin"), "open_clip_model.safetensors"),
        (("model.safetensors", "pytorch_model.bin"), "model.safetensors"),
    ],
)
def test_of_several_weights_only_forms_of_one_model_are_chosen_from(
    folder: Path, tensors: Tensors, tmp_path: Path, names: tuple[str, ...], chosen: str | None
) -> None:
    for name in names:
        if name.endswith(".safetensors"):
            save_file(tensors if name == chosen else {n: t + 1 for n, t in tensors.items()}, folder / name)
        else:
            torch.save({n: t + 1 for n, t in tensors.items()}, folder / name)

    if chosen is None:
        said = refusal(folder, tmp_path)
        assert "several weights files" in said
        assert all(name in said for name in names)
    else:
        check_equal(read(folder, tmp_path), tensors)


def write_shards(folder: Path, tensors: Tensors, *, indexed: bool = True) -> None:
    halves = [dict(list(tensors.items())[::2]), dict(list(tensors.items())[1::2])]
    places = {}
    for number, half in enumerate(halves, 1):
        name = f"model-{number:05}-of-00002.safetensors"
        save_file(half, folder / name)
        places |= dict.fromkeys(half, name)
    if indexed:
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


@pytest.mark.parametrize("indexed", [True, False])
def test_shards_are_joined(folder: Path, tensors: Tensors, tmp_path: Path, indexed: bool) -> None:
    write_shards(folder, tensors, indexed=indexed)
    check_same(loaded(folder, tmp_path), tensors)

    (folder / "model-00002-of-00002.safetensors").unlink()
    said = refusal(folder, tmp_path / "second")
    assert "model-00002-of-00002.safetensors" in said if indexed else "folder holds 1" in said


def change(folder: Path, tower: str | None = None, **fields: Any) -> None:
    content = json.loads((folder / CONFIG).read_text())
    part = content["model_cfg"][tower] if tower else content["model_cfg"]
    part |= fields
    (folder / CONFIG).write_text(json.dumps(content))


MISFITS: dict[str, tuple[Callable[[Path], None], str]] = {
    "text layers": (
        lambda f: change(f, "text_cfg", layers=5),
        "says 5 text layers (text_cfg.layers), the weights have 2",
    ),
    "image layers": (
        lambda f: change(f, "vision_cfg", layers=3),
        "says 3 image layers (vision_cfg.layers), the weights have 4",
    ),
    "image size": (lambda f: change(f, "vision_cfg", image_size=64), "(vision_cfg.image_size and patch_size)"),
    "vocabulary": (lambda f: change(f, "text_cfg", vocab_size=49409), "(text_cfg.vocab_size and width)"),
    "context": (
        lambda f: change(f, "text_cfg", context_length=77),
        "has the shape [16, 32] in the weights and [77, 32]",
    ),
    "tower": (
        lambda f: change(f, "vision_cfg", layers=[1, 1, 1, 1]),
        "the image tower of the weights is a ViT, but open_clip_config.json describes a ResNet",
    ),
}


@pytest.mark.parametrize("kind", MISFITS)
@pytest.mark.parametrize("end", ["safetensors", "bin"])
def test_a_config_of_another_model_is_said_in_one_sentence(
    folder: Path, tensors: Tensors, tmp_path: Path, kind: str, end: str
) -> None:
    spoil, says = MISFITS[kind]
    if end == "safetensors":
        save_file(tensors, folder / WEIGHTS)
    else:
        torch.save(tensors, folder / "open_clip_pytorch_model.bin")
    spoil(folder)

    assert says in refusal(folder, tmp_path)


SPOILT: dict[str, tuple[Callable[[Tensors], Tensors], str]] = {
    "one is missing": (
        lambda t: {n: v for n, v in t.items() if n != "visual.proj"},
        "lack 1 of its tensors (visual.proj)",
    ),
    "one is more": (lambda t: t | {"head.weight": torch.ones(2)}, "hold 1 that it does not know (head.weight)"),
    "logit_bias": (lambda t: t | {"logit_bias": torch.tensor(-10.0)}, 'add "init_logit_bias": -10 to model_cfg'),
    "another model": (lambda t: {"layer.weight": torch.ones(2)}, "hold no tensor that open_clip_config.json has"),
    "transformers": (
        lambda t: {"text_model.a": torch.ones(2), "vision_model.b": torch.ones(2)},
        "have the tensor names of transformers",
    ),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_other_tensors_are_said_in_one_sentence(folder: Path, tensors: Tensors, tmp_path: Path, kind: str) -> None:
    spoil, says = SPOILT[kind]
    save_file(spoil(tensors), folder / WEIGHTS)

    assert says in refusal(folder, tmp_path)


def test_names_are_never_cut(folder: Path, tensors: Tensors, tmp_path: Path) -> None:
    few = {n: t for n, t in tensors.items() if ".mlp." not in n}
    save_file(few, folder / WEIGHTS)

    said = refusal(folder, tmp_path)

    named = said[said.index("tensors (") + 9 : said.index(" and ")].split(", ")
    assert set(named) <= set(tensors) - set(few)
    assert len(named) > 1


def test_a_bias_of_the_logits_that_the_config_has_is_loaded(folder: Path, tensors: Tensors, tmp_path: Path) -> None:
    change(folder, init_logit_bias=-10.0)
    save_file(tensors | {"logit_bias": torch.tensor(-9.0)}, folder / WEIGHTS)

    assert loaded(folder, tmp_path).model.logit_bias.item() == -9.0


def test_a_text_tower_is_found_at_both_of_its_places(folder: Path, tensors: Tensors, tmp_path: Path) -> None:
    custom = {n if n.startswith(("visual.", "logit_")) else f"text.{n}": t for n, t in tensors.items()}
    save_file(custom, folder / WEIGHTS)
    check_same(loaded(folder, tmp_path), tensors)

    change(folder, custom_text=True)
    save_file(tensors, folder / WEIGHTS)
    check_same(loaded(folder, tmp_path / "second"), custom)


def test_a_resnet_without_counters_gets_them(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "resnet", "resnet")
    tensors = load_file(folder / WEIGHTS)
    save_file({n: t for n, t in tensors.items() if not n.endswith("num_batches_tracked")}, folder / WEIGHTS)

    check_same(loaded(folder, tmp_path), tensors)


def test_half_precision_becomes_full(folder: Path, tensors: Tensors, tmp_path: Path) -> None:
    half = {n: t.bfloat16() if n.startswith("visual") else t.half() for n, t in renamed(tensors, "module.").items()}
    save_file(half, folder / WEIGHTS)

    check_same(loaded(folder, tmp_path), {n.removeprefix("module."): t for n, t in half.items()})


# OpenAI's own files ---------------------------------------------------------------------------------------------------

OPENAI = {
    "embed_dim": 32,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2},
}
OPENAI_RESNET = OPENAI | {"vision_cfg": {"image_size": 64, "layers": [1, 2, 1, 1], "width": 8, "patch_size": None}}
IMAGES, TEXTS = torch.rand(2, 3, 32, 32), ["a horse", "two cats"]


class OpenAi(torch.nn.Module):
    """open_clip's model with OpenAI's buffers, to be traced as OpenAI's own was."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        model = open_clip.CLIP(**config)
        self.model_attn_mask = model.attn_mask
        for name, child in [*model.named_children()]:
            self.add_module(name, child)
        for name, parameter in [*model.named_parameters(recurse=False)]:
            self.register_parameter(name, parameter)
        for name, value in (("input_resolution", 32), ("context_length", 16), ("vocab_size", 49408)):
            self.register_buffer(name, torch.tensor(value))

    def forward(self, image: torch.Tensor, text: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.token_embedding(text) + self.positional_embedding
        x = self.ln_final(self.transformer(x, attn_mask=self.model_attn_mask))
        x = x[torch.arange(x.shape[0]), text.argmax(dim=-1)] @ self.text_projection
        return self.visual(image) * self.logit_scale.exp(), x


def traced(config: dict[str, Any], path: Path, side: int = 32) -> OpenAi:
    """Write a TorchScript archive with the names of OpenAI's."""
    torch.manual_seed(0)
    model = OpenAi(config).eval()
    text = open_clip.tokenize(TEXTS, context_length=16)
    torch.jit.save(torch.jit.trace(model, (torch.rand(2, 3, side, side), text), check_trace=False), path)
    return model


def check_features(clip: Clip, model: OpenAi, side: int) -> None:
    images, text = torch.rand(2, 3, side, side), clip.tokenizer(TEXTS)
    with torch.no_grad():
        image_features, text_features = model(images, text)
        torch.testing.assert_close(clip.model.encode_image(images) * clip.model.logit_scale.exp(), image_features)
        torch.testing.assert_close(clip.model.encode_text(text), text_features)


@pytest.mark.parametrize(("config", "side"), [(OPENAI, 32), (OPENAI_RESNET, 64)], ids=["ViT", "ResNet"])
def test_a_torchscript_archive_is_read_without_its_code(
    tmp_path: Path, config: dict[str, Any], side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").mkdir()
    model = traced(config, tmp_path / "model" / "ViT-B-32.pt", side)
    monkeypatch.setattr(torch.jit, "load", None)

    clip = loaded(tmp_path / "model", tmp_path)

    assert clip.config["model_cfg"]["quick_gelu"] is True
    check_features(clip, model, side)


def test_the_activation_of_a_torchscript_archive_is_told_by_its_code(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    model = traced(OPENAI | {"quick_gelu": False}, tmp_path / "model" / "mine.pt")

    clip = loaded(tmp_path / "model", tmp_path)

    assert not clip.config["model_cfg"]["quick_gelu"]
    check_features(clip, model, 32)


def test_openais_state_dict_has_quick_gelu(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = OpenAi(OPENAI).eval()
    (tmp_path / "model").mkdir()
    torch.save(
        {n: t.half() if t.is_floating_point() else t for n, t in model.state_dict().items()},
        tmp_path / "model" / "x.pt",
    )

    clip = loaded(tmp_path / "model", tmp_path)

    assert clip.config["model_cfg"]["quick_gelu"] is True
    assert torch.equal(clip.model.visual.proj, model.visual.proj.half().float())


@pytest.mark.parametrize("module", ["builtins", "os", "torch", "torch._utils", "torch.jit._script"])
def test_a_torchscript_archive_that_does_something_does_nothing(tmp_path: Path, module: str) -> None:
    (tmp_path / "model").mkdir()
    ran = tmp_path / "ran"
    call = f"c{module}\neval\n(S'open({str(ran)!r}, \"w\")'\ntR.".encode()
    with zipfile.ZipFile(tmp_path / "model" / "x.pt", "w") as archive:
        for name, content in {
            "data.pkl": call,
            "constants.pkl": b"(t.",
            "code/__torch__.py": b"",
            "version": b"3",
        }.items():
            archive.writestr(f"archive/{name}", content)

    said = refusal(tmp_path / "model", tmp_path)

    assert "is a TorchScript archive that holds more than a model's tensors" in said
    assert not ran.exists()
