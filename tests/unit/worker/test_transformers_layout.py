"""transformers' CLIPModel in and out: features are those of transformers, and the way back gives the same file."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from shared.errors import InvalidRequest, JobFailure
from shared.schemas.clip_config import ModelConfig
from shared.weights.tensor_files import TensorFiles, write_safetensors
from shared.weights.tensor_rules import tensors as made
from shared.weights.transformers_layout import processor_config, rules_to_transformers, transformers_config
from tests.support.tiny import write_model
from worker.clip.checkpoint import load_clip, save_clip

TEXT = {"hidden_size": 32, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 4}
VISION = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 3}
SIZES = {
    "text_config": TEXT | {"max_position_embeddings": 77},
    "vision_config": VISION | {"image_size": 32, "patch_size": 8},
}
KINDS: dict[str, dict[str, Any]] = {
    "quick_gelu": {},
    "gelu": {"text": {"hidden_act": "gelu", "layer_norm_eps": 1e-6}, "vision": {"hidden_act": "gelu"}},
    "early config": {"text": {"eos_token_id": 2}},
}


def write_transformers(folder: Path, kind: str = "quick_gelu", *, shards: bool = False) -> Any:
    """Write a random CLIPModel as transformers does, and return it."""
    torch.manual_seed(0)
    change = KINDS[kind]
    config = transformers.CLIPConfig(
        text_config=SIZES["text_config"] | change.get("text", {}),
        vision_config=SIZES["vision_config"] | change.get("vision", {}),
        projection_dim=24,
    )
    model = transformers.CLIPModel(config).eval()
    for parameter in model.parameters():  # biases that are zero would hide what is mixed up
        parameter.data += 0.05 * torch.randn_like(parameter)
    model.save_pretrained(folder, **({"max_shard_size": "2MB"} if shards else {}))
    return model


def check_features(clip: Any, model: Any) -> None:
    images = torch.randn(16, 3, 32, 32)
    texts = clip.tokenizer([f"a photo of {number} horses and a {'very ' * number}small cat" for number in range(16)])
    with torch.no_grad():
        theirs = model(pixel_values=images, input_ids=texts)
        for ours, their in (
            (clip.model.encode_image(images), model.get_image_features(pixel_values=images)),
            (clip.model.encode_text(texts), model.get_text_features(input_ids=texts)),
        ):
            their = getattr(their, "pooler_output", their)
            torch.testing.assert_close(ours, their, rtol=0, atol=1e-5)
        normal = torch.nn.functional.normalize
        logits = normal(clip.model.encode_image(images)) @ normal(clip.model.encode_text(texts)).T * clip.logit_scale
        torch.testing.assert_close(logits, theirs.logits_per_image, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_clip_model_of_transformers_has_the_same_features(tmp_path: Path, kind: str) -> None:
    model = write_transformers(tmp_path / "hf", kind)

    clip = load_clip(f"local-dir:{tmp_path / 'hf'}", scratch=tmp_path / "scratch")

    check_features(clip, model)
    assert clip.config["model_cfg"]["quick_gelu"] is (kind != "gelu")


def test_shards_below_a_module_of_sentence_transformers_are_taken(tmp_path: Path) -> None:
    model = write_transformers(tmp_path / "st" / "0_CLIPModel", shards=True)
    assert len(list((tmp_path / "st" / "0_CLIPModel").glob("*.safetensors"))) > 1
    (tmp_path / "st" / "modules.json").write_text("[]")
    (tmp_path / "st" / "1_Dense").mkdir()
    (tmp_path / "st" / "1_Dense" / "config.json").write_text('{"in_features": 24}')

    check_features(load_clip(f"local-dir:{tmp_path / 'st'}", scratch=tmp_path / "scratch"), model)


def converted(folder: Path, target: Path) -> None:
    """Write a folder of open_clip's layout as transformers'."""
    config = json.loads((folder / "open_clip_config.json").read_text())
    model = ModelConfig.model_validate(config["model_cfg"])
    target.mkdir()
    (target / "config.json").write_text(json.dumps(transformers_config(model)))
    (target / "preprocessor_config.json").write_text(json.dumps(processor_config(model, config["preprocess_cfg"])))
    read = TensorFiles([folder / "open_clip_model.safetensors"])
    tensors = made(rules_to_transformers(model), read.infos, read)
    write_safetensors(target / "model.safetensors", tensors, {"format": "pt"})


def test_there_and_back_is_the_same_file(tmp_path: Path) -> None:
    write_transformers(tmp_path / "hf")
    clip = load_clip(f"local-dir:{tmp_path / 'hf'}", scratch=tmp_path / "scratch")
    save_clip(clip, tmp_path / "open_clip")

    converted(tmp_path / "open_clip", tmp_path / "back")

    theirs, ours = load_file(tmp_path / "hf" / "model.safetensors"), load_file(tmp_path / "back" / "model.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_model_of_open_clip_is_loaded_by_transformers(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "open_clip", "vit")
    clip = load_clip(f"local-dir:{folder}", scratch=tmp_path / "scratch")

    converted(folder, tmp_path / "hf")

    model, told = transformers.CLIPModel.from_pretrained(tmp_path / "hf", output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"]
    check_features(clip, model.eval())
    processor = transformers.CLIPImageProcessor.from_pretrained(tmp_path / "hf")
    picture = torch.randint(0, 255, (3, 40, 50), dtype=torch.uint8)
    from torchvision.transforms.functional import to_pil_image

    image = to_pil_image(picture)
    theirs = processor(images=image, return_tensors="pt")["pixel_values"][0]
    assert (theirs - clip.transform(image)).abs().max() < 0.05


def test_what_transformers_has_not_is_said(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "open_clip", "resnet")
    model = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]

    with pytest.raises(InvalidRequest, match="has no ResNet"):
        transformers_config(ModelConfig.model_validate(model))


REFUSED = {
    "another model": ({"model_type": "bert"}, "is of a 'bert' model"),
    "another size": ({"projection_dim": 25}, "which does not fit config.json"),
    "more layers": ({"text_config": TEXT | {"num_hidden_layers": 3}}, "lack 16 tensors"),
    "fewer layers": ({"text_config": TEXT | {"num_hidden_layers": 1}}, "hold 16 that it does not know"),
    "another vocabulary": ({"text_config": TEXT | {"vocab_size": 99}}, "add the files of its tokenizer"),
    "an activation": ({"vision_config": SIZES["vision_config"] | {"hidden_act": "relu"}}, "hidden_act is 'relu'"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_config_that_does_not_fit_is_said_in_one_sentence(tmp_path: Path, kind: str) -> None:
    write_transformers(tmp_path / "hf")
    change, says = REFUSED[kind]
    path = tmp_path / "hf" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))

    with pytest.raises(JobFailure) as caught:
        load_clip(f"local-dir:{tmp_path / 'hf'}", scratch=tmp_path / "scratch")

    assert says in caught.value.detail
    assert len(caught.value.detail) <= 310


def test_half_of_a_model_is_refused(tmp_path: Path) -> None:
    write_transformers(tmp_path / "hf")
    tensors = load_file(tmp_path / "hf" / "model.safetensors")
    save_file(
        {n: t for n, t in tensors.items() if not n.startswith("vision_model")}, tmp_path / "hf" / "model.safetensors"
    )

    with pytest.raises(JobFailure, match="lack"):
        load_clip(f"local-dir:{tmp_path / 'hf'}", scratch=tmp_path / "scratch")
