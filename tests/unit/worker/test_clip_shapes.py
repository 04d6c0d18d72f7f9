"""What the gateway expects of a config, against what open_clip builds from it."""

import json
from typing import Any

import open_clip
import pytest
import torch

from shared.schemas.clip_config import ModelConfig
from shared.weights.architectures import _FILE, known_config, nearest, quick_gelu_twin
from shared.weights.clip_shapes import expected_tensors

SMALL_VISION = {"image_size": 32, "layers": 2, "width": 32, "patch_size": 8, "head_width": 16}
SMALL_TEXT = {"context_length": 16, "vocab_size": 100, "width": 32, "heads": 2, "layers": 2}
CUSTOM = {"qk_norm": True, "scale_heads": True, "scale_attn_inner": True, "scale_attn": True, "scale_fc": True}
CHANGES: dict[str, dict[str, Any]] = {
    "plain": {},
    "custom text": {"custom_text": True},
    "logit bias": {"init_logit_bias": -10.0, "nonscalar_logit_scale": True},
    "resnet": {"vision_cfg": {"image_size": 64, "layers": [1, 2, 1, 1], "width": 8, "patch_size": None}},
    "layer scale": {"vision_cfg": {"ls_init_value": 0.1, "no_ln_pre": True}, "text_cfg": {"ls_init_value": 0.1}},
    "pooled by attention": {"vision_cfg": {"attentional_pool": True, "attn_pooler_queries": 7, "attn_pooler_heads": 2}},
    "parallel pooling": {"vision_cfg": {"attentional_pool": "parallel", "attn_pooler_heads": 2, "width": 64}},
    "custom blocks": {"vision_cfg": CUSTOM, "text_cfg": CUSTOM},
    "cosine attention": {"vision_cfg": {"scaled_cosine_attn": True}, "text_cfg": {"block_type": "custom"}},
    "other ratios": {"vision_cfg": {"mlp_ratio": 2.5}, "text_cfg": {"mlp_ratio": 3.0}},
    "class token in the text": {"custom_text": True, "text_cfg": {"embed_cls": True, "proj_bias": True}},
    "no projection": {"embed_dim": 32, "custom_text": True, "text_cfg": {"proj_type": "none"}},
    "norms without weights": {"vision_cfg": {"norm_kwargs": {"elementwise_affine": False}}},
    "wide images": {"vision_cfg": {"image_size": [32, 64]}},
}


def config(change: dict[str, Any]) -> dict[str, Any]:
    towers = {
        "vision_cfg": SMALL_VISION | change.get("vision_cfg", {}),
        "text_cfg": SMALL_TEXT | change.get("text_cfg", {}),
    }
    return {"embed_dim": 24} | change | towers


def built(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the model that open_clip builds."""
    config = dict(config)
    custom = config.pop("custom_text", False)
    with torch.device("meta"):
        model = (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**config)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("name", CHANGES)
def test_the_tensors_of_a_config_are_those_that_open_clip_makes(name: str) -> None:
    described = config(CHANGES[name])

    assert expected_tensors(ModelConfig.model_validate(described)).shapes == built(described)


@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-L-14-336-quickgelu", "RN50", "RN50x4", "ViT-H-14-worldwide"])
def test_the_tensors_of_a_known_architecture_are_those_that_open_clip_makes(name: str) -> None:
    described = known_config(name)
    assert described is not None

    assert expected_tensors(ModelConfig.model_validate(described)).shapes == built(described)


def test_of_towers_from_elsewhere_only_the_prefix_is_told() -> None:
    siglip = known_config("ViT-B-16-SigLIP")
    assert siglip is not None
    expected = expected_tensors(ModelConfig.model_validate(siglip))

    assert expected.known("visual.trunk.anything")
    assert not expected.known("text.trunk.anything")
    assert "logit_bias" in expected.optional


def test_the_table_of_architectures_is_that_of_open_clip() -> None:
    table = json.loads(_FILE.read_text())

    assert table == {name: json.loads(json.dumps(open_clip.get_model_config(name))) for name in open_clip.list_models()}
    assert quick_gelu_twin("ViT-B-32") == "ViT-B-32-quickgelu"
    assert quick_gelu_twin("ViT-H-14") == "ViT-H-14-quickgelu"
    assert quick_gelu_twin("ViT-B-32-256") is None
    assert "ViT-B-32" in nearest("vit-b32")
