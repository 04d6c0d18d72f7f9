"""The layout of transformers' `CLIPModel`, and open_clip's of the same model: configs, names and
shapes of tensors, both ways.

Features are the same: joining the projections of query, key and value, and transposing, changes
no number."""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import Field, ValidationError

from shared.files.errors import invalid
from shared.schemas.base import Schema
from shared.schemas.clip_config import (
    Count,
    Factor,
    ImageSize,
    Length,
    ModelConfig,
    Vocabulary,
    Width,
    Word,
)
from shared.schemas.validation_errors import invalid_request
from shared.weights.clip_shapes import CONTEXT, VOCABULARY, Expected
from shared.weights.tensor_files import TensorInfo
from shared.weights.tensor_rules import Rule
from shared.weights.weight_names import listed

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
PROCESSOR = "preprocessor_config.json"
MODEL_TYPE = "clip"
START, END = 49406, 49407
"""Of a text, in the vocabulary of OpenAI's CLIP."""
LEGACY_END = 2
"""What early configs say of the end: transformers then takes the largest id, as open_clip does."""
OWN_TOKENIZER = "beside-the-weights"
"""Stands where open_clip expects a tokenizer's name; it reads the files of the folder whatever
the name.
"""
BICUBIC, BILINEAR = 3, 2
OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)
EPSILON = 1e-5
ACTIVATIONS: Mapping[str, tuple[bool, str | None]] = {
    "quick_gelu": (True, None),
    "gelu": (False, None),
    "gelu_new": (False, "tanh"),
    "gelu_pytorch_tanh": (False, "tanh"),
}
"""By transformers' names: whether it is QuickGELU, and how GELU is approximated."""


class _Part(Schema, extra="ignore"):
    """Fields of a config that decide on the model; transformers writes many more."""


class _TowerConfig(_Part):
    hidden_act: Word = "quick_gelu"
    layer_norm_eps: Factor = EPSILON

    hidden_size: Width
    intermediate_size: Width
    num_hidden_layers: Count = 12
    num_attention_heads: Count


class _TextConfig(_TowerConfig):
    hidden_size: Width = 512
    intermediate_size: Width = 2048
    num_attention_heads: Count = 8
    max_position_embeddings: Length = CONTEXT
    vocab_size: Vocabulary = VOCABULARY
    eos_token_id: int | None = Field(END, ge=0)


class _VisionConfig(_TowerConfig):
    hidden_size: Width = 768
    intermediate_size: Width = 3072
    num_attention_heads: Count = 12
    image_size: ImageSize = 224
    patch_size: ImageSize = 32
    num_channels: int = 3


class TransformersConfig(_Part):
    """`config.json` of a `CLIPModel`, with the defaults of transformers."""

    model_type: str
    projection_dim: Width = 512
    text_config: _TextConfig = _TextConfig()
    vision_config: _VisionConfig = _VisionConfig()


def read_transformers_config(content: Mapping[str, Any]) -> TransformersConfig:
    """Return a `config.json` as far as it matters.

    Raises:
        InvalidRequest: it is none of a CLIPModel, or a field is out of range.
    """
    kind = content.get("model_type")
    if kind != MODEL_TYPE:
        raise invalid(
            f"{CONFIG} is of a {str(kind)[:40]!r} model; of transformers' models only CLIPModel "
            "(model_type 'clip') is"
            " converted; give others in open_clip's layout"
        )
    old = {f"{tower}_config": content.get(f"{tower}_config_dict") for tower in ("text", "vision")}
    parts = {
        n: {**(content.get(n) or {}), **(part or {})}
        for n, part in old.items()
        if content.get(n) or part
    }
    try:
        return TransformersConfig.model_validate({**content, **parts})
    except (ValidationError, TypeError) as error:
        if isinstance(error, TypeError):
            raise invalid(f"{CONFIG}: text_config and vision_config must be objects") from error
        first = invalid_request(error, dict(content)).errors[0]
        raise invalid(f"{CONFIG}: {first.pointer or '/'} {first.detail}") from error


def open_clip_config(
    config: TransformersConfig, processor: Mapping[str, Any], *, own_tokenizer: bool
) -> dict[str, Any]:
    """Return `open_clip_config.json` for a CLIPModel.

    Args:
        config: its config.
        processor: its `preprocessor_config.json`; empty where there is none, which stands for
            OpenAI's.
        own_tokenizer: whether its tokenizer's files lie beside it and are not those of OpenAI's
            CLIP.

    Raises:
        InvalidRequest: open_clip has no such model.
    """
    text, vision = config.text_config, config.vision_config
    quick, _ = _activation(text)
    if quick != _activation(vision)[0]:
        raise invalid(
            f"{CONFIG}: the towers have different activations, which open_clip cannot have; "
            "give "
            "the same hidden_act"
        )
    if vision.num_channels != 3:
        raise invalid(f"{CONFIG}: images have {vision.num_channels} channels; 3 are taken")
    text_cfg = _tower(text) | {
        "context_length": text.max_position_embeddings,
        "vocab_size": text.vocab_size,
        "heads": text.num_attention_heads,
    }
    if text.eos_token_id not in (LEGACY_END, text.vocab_size - 1):
        text_cfg |= {"pool_type": "eos", "eos_id": text.eos_token_id}
    if own_tokenizer:
        text_cfg["hf_tokenizer_name"] = OWN_TOKENIZER
    vision_cfg = _tower(vision) | {
        "image_size": vision.image_size,
        "patch_size": vision.patch_size,
        "head_width": vision.hidden_size // vision.num_attention_heads,
    }
    model_cfg = {
        "embed_dim": config.projection_dim,
        "quick_gelu": quick,
        "vision_cfg": vision_cfg,
        "text_cfg": text_cfg,
    }
    return {"model_cfg": model_cfg, "preprocess_cfg": _preprocess(processor)}


def own_vocabulary(config: TransformersConfig) -> bool:
    """True where the vocabulary is not that of OpenAI's CLIP, which open_clip has."""
    text = config.text_config
    return text.vocab_size != VOCABULARY or text.eos_token_id not in (LEGACY_END, END)


def rules_from_transformers(expected: Expected, infos: Mapping[str, TensorInfo]) -> dict[str, Rule]:
    """Return how open_clip's tensors are made of transformers', which lie in `infos` with or
    without a prefix.

    Raises:
        InvalidRequest: one is missing, unknown or of another shape; the detail is one sentence.
    """
    prefix = next(
        (n.removesuffix(_SCALE) for n in infos if n == _SCALE or n.endswith(f".{_SCALE}")), ""
    )
    rules = {name: _taken(name, prefix) for name in expected.shapes}
    used = {source for rule in rules.values() for source in rule.sources}
    unknown = [n for n in infos if n not in used and not n.endswith("position_ids")]
    missing = sorted(used - set(infos))
    if missing or unknown:
        lack = f"lack {len(missing)} tensors ({listed(missing, 70)})" if missing else ""
        more = (
            f"hold {len(unknown)} that it does not know ({listed(unknown, 70)})" if unknown else ""
        )
        said = " and ".join(part for part in (lack, more) if part)
        raise invalid(
            f"the weights do not fit {CONFIG}: they {said}; give the whole CLIPModel and its "
            "own "
            "config"
        )
    for name, rule in rules.items():
        if (shape := rule.info(infos).shape) != expected.shapes[name]:
            if name == "logit_scale" and math.prod(shape) == 1:
                rules[name] = Rule(rule.sources, shape=())
                continue
            raise invalid(
                f"{rule.sources[0]} has the shape {list(infos[rule.sources[0]].shape)}, which does "
                f"not fit {CONFIG};"
                " give the config that was made with these weights"
            )
    return rules


def transformers_config(model: ModelConfig) -> dict[str, Any]:
    """Return `config.json` of the CLIPModel that equals a model of open_clip.

    Raises:
        InvalidRequest: transformers' CLIPModel has no such model; the detail says what it lacks.
    """
    if (lacking := _lacking(model)) is not None:
        raise invalid(
            f"transformers' CLIPModel has no {lacking}; take the weights in open_clip's layout"
        )
    text, vision = model.text_cfg, model.vision_cfg
    end = text.eos_id if text.pool_type == "eos" else (text.vocab_size or VOCABULARY) - 1
    width = vision.width or 768
    heads = width // (vision.head_width or 64)
    text_config = _out_tower(text, text.width or 512, text.heads or 8, model) | {
        "model_type": "clip_text_model",
        "max_position_embeddings": text.context_length or CONTEXT,
        "vocab_size": text.vocab_size or VOCABULARY,
        "bos_token_id": START,
        "eos_token_id": end,
        "pad_token_id": end,
    }
    vision_config = _out_tower(vision, width, heads, model) | {
        "model_type": "clip_vision_model",
        "image_size": _side(model),
        "patch_size": vision.patch_size or 16,
        "num_channels": 3,
    }
    return {
        "architectures": ["CLIPModel"],
        "model_type": MODEL_TYPE,
        "dtype": "float32",
        "initializer_factor": 1.0,
        "logit_scale_init_value": 2.6592,
        "projection_dim": model.embed_dim,
        "text_config": text_config | {"projection_dim": model.embed_dim},
        "vision_config": vision_config | {"projection_dim": model.embed_dim},
    }


def processor_config(model: ModelConfig, preprocess: Mapping[str, Any]) -> dict[str, Any]:
    """Return `preprocessor_config.json` of a CLIPImageProcessor that does what open_clip does
    with an image.
    """
    side = _side(model)
    shortest = preprocess.get("resize_mode") in (None, "shortest")
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": side} if shortest else {"height": side, "width": side},
        "resample": BILINEAR if preprocess.get("interpolation") == "bilinear" else BICUBIC,
        "do_center_crop": shortest,
        "crop_size": {"height": side, "width": side},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(preprocess.get("mean") or OPENAI_MEAN),
        "image_std": list(preprocess.get("std") or OPENAI_STD),
    }


def rules_to_transformers(model: ModelConfig) -> dict[str, Rule]:
    """Return how transformers' tensors are made of open_clip's, for a model that has a
    `transformers_config`.
    """
    text = "text." if model.custom_text else ""
    rules = {
        target: Rule((source.format(text=text),), transposed)
        for target, (source, transposed) in _OUT.items()
    }
    for tower, start, layers in (
        ("vision_model", "visual.", model.vision_cfg.layers),
        ("text_model", text, model.text_cfg.layers),
    ):
        for number in range(layers if isinstance(layers, int) else 12):
            rules |= _layer_out(
                f"{tower}.encoder.layers.{number}.", f"{start}transformer.resblocks.{number}."
            )
    return rules


# Names
# --------------------------------------------------------------------------------------------------

_SCALE = "logit_scale"
_OUT: dict[str, tuple[str, bool]] = {
    _SCALE: (_SCALE, False),
    "vision_model.embeddings.class_embedding": ("visual.class_embedding", False),
    "vision_model.embeddings.patch_embedding.weight": ("visual.conv1.weight", False),
    "vision_model.embeddings.position_embedding.weight": ("visual.positional_embedding", False),
    "vision_model.pre_layrnorm.weight": ("visual.ln_pre.weight", False),
    "vision_model.pre_layrnorm.bias": ("visual.ln_pre.bias", False),
    "vision_model.post_layernorm.weight": ("visual.ln_post.weight", False),
    "vision_model.post_layernorm.bias": ("visual.ln_post.bias", False),
    "visual_projection.weight": ("visual.proj", True),
    "text_model.embeddings.token_embedding.weight": ("{text}token_embedding.weight", False),
    "text_model.embeddings.position_embedding.weight": ("{text}positional_embedding", False),
    "text_model.final_layer_norm.weight": ("{text}ln_final.weight", False),
    "text_model.final_layer_norm.bias": ("{text}ln_final.bias", False),
    "text_projection.weight": ("{text}text_projection", True),
}
"""transformers' names outside of layers: open_clip's, and whether it is transposed."""
_IN = {
    source.format(text=""): (target, transposed) for target, (source, transposed) in _OUT.items()
}
_PARTS = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
"""Parts of a layer, open_clip's names: transformers'."""
_QKV = ("q", "k", "v")


def _taken(name: str, prefix: str) -> Rule:
    """Return how one of open_clip's tensors is made."""
    if name in _IN:
        source, transposed = _IN[name]
        return Rule((prefix + source,), transposed)
    tower, _, rest = name.partition("transformer.resblocks.")
    number, _, part = rest.partition(".")
    layer = f"{prefix}{'vision_model' if tower else 'text_model'}.encoder.layers.{number}."
    for kind in ("weight", "bias"):
        if part == f"attn.in_proj_{kind}":
            return Rule(tuple(f"{layer}self_attn.{one}_proj.{kind}" for one in _QKV))
    module, _, kind = part.rpartition(".")
    return Rule((f"{layer}{_PARTS[module]}.{kind}",))


def _layer_out(target: str, source: str) -> Iterator[tuple[str, Rule]]:
    for kind in ("weight", "bias"):
        for place, one in enumerate(_QKV):
            yield (
                f"{target}self_attn.{one}_proj.{kind}",
                Rule((f"{source}attn.in_proj_{kind}",), part=(place, 3)),
            )
        for ours, theirs in _PARTS.items():
            yield f"{target}{theirs}.{kind}", Rule((f"{source}{ours}.{kind}",))


# Configs
# --------------------------------------------------------------------------------------------------


def _activation(tower: _TowerConfig) -> tuple[bool, str | None]:
    if tower.hidden_act not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise invalid(f"{CONFIG}: hidden_act is {tower.hidden_act!r}; open_clip has {known}")
    return ACTIVATIONS[tower.hidden_act]


def _tower(tower: _TowerConfig) -> dict[str, Any]:
    """Return what both of open_clip's towers have."""
    width = tower.hidden_size
    if width % tower.num_attention_heads:
        raise invalid(
            f"{CONFIG}: a width of {width} cannot be shared by {tower.num_attention_heads} heads"
        )
    ratio = tower.intermediate_size / width
    if int(width * ratio) != tower.intermediate_size:
        ratio = math.nextafter(ratio, math.inf)
    config: dict[str, Any] = {"layers": tower.num_hidden_layers, "width": width}
    if ratio != 4:
        config["mlp_ratio"] = ratio
    if (approximate := _activation(tower)[1]) is not None:
        config["act_kwargs"] = {"approximate": approximate}
    if tower.layer_norm_eps != EPSILON:
        config["norm_kwargs"] = {"eps": tower.layer_norm_eps}
    return config


def _preprocess(processor: Mapping[str, Any]) -> dict[str, Any]:
    """Return open_clip's `preprocess_cfg`; whatever the file does not say is as OpenAI has it."""
    return {
        "mean": list(processor.get("image_mean") or OPENAI_MEAN),
        "std": list(processor.get("image_std") or OPENAI_STD),
        "interpolation": "bilinear"
        if processor.get("resample", BICUBIC) == BILINEAR
        else "bicubic",
        "resize_mode": "shortest" if processor.get("do_center_crop", True) else "squash",
    }


def _side(model: ModelConfig) -> int:
    size = model.vision_cfg.image_size or 224
    return size[0] if isinstance(size, tuple) else size


def _out_tower(tower: Any, width: int, heads: int, model: ModelConfig) -> dict[str, Any]:  # noqa: ANN401 - either tower
    norm = (
        tower.norm_kwargs.eps
        if tower.norm_kwargs and tower.norm_kwargs.eps is not None
        else EPSILON
    )
    tanh = tower.act_kwargs is not None and tower.act_kwargs.approximate == "tanh"
    return {
        "hidden_size": width,
        "intermediate_size": int(width * (4.0 if tower.mlp_ratio is None else tower.mlp_ratio)),
        "num_hidden_layers": tower.layers or 12,
        "num_attention_heads": heads,
        "hidden_act": "quick_gelu" if model.quick_gelu else "gelu_pytorch_tanh" if tanh else "gelu",
        "layer_norm_eps": norm,
        "attention_dropout": 0.0,
    }


def _lacking(model: ModelConfig) -> str | None:
    """Return what a model has that CLIPModel does not, None where it has nothing of the kind."""
    vision, text = model.vision_cfg, model.text_cfg
    lacking = {
        f"tower of timm ({vision.timm_model_name})": vision.timm_model_name,
        f"text tower of transformers' {text.hf_model_name}": text.hf_model_name,
        "ResNet": isinstance(vision.layers, tuple),
        "decoder": model.multimodal_cfg,
        "logit_bias": model.init_logit_bias is not None,
        "pooling by attention": vision.attentional_pool,
        "image tower without a first norm": vision.no_ln_pre,
        f"pooling {vision.pool_type!r} of images": vision.pool_type not in (None, "tok"),
        f"pooling {text.pool_type!r} of texts": text.pool_type not in (None, "argmax", "eos"),
        "text tower without a causal mask": text.no_causal_mask,
        "class token in the text": text.embed_cls,
        f"projection {text.proj_type!r} of texts": text.proj_type == "none" or text.proj_bias,
        "norm after pooling": vision.final_ln_after_pool or text.final_ln_after_pool,
        "images that are not square": isinstance(vision.image_size, tuple)
        and len(set(vision.image_size)) > 1,
        "fixed positions": vision.pos_embed_type not in (None, "learnable"),
    }
    for tower in (vision, text):
        lacking["layer scale"] = lacking.get("layer scale") or tower.ls_init_value is not None
        own = (tower.qk_norm, tower.scaled_cosine_attn, tower.scale_heads, tower.scale_attn_inner)
        lacking["blocks of that kind"] = lacking.get("blocks of that kind") or any(
            (*own, tower.scale_attn, tower.scale_fc)
        )
    return next((name for name, has in lacking.items() if has), None)


def parse_json(content: bytes, name: str) -> dict[str, Any]:
    """Return an object from JSON.

    Raises:
        InvalidRequest: it is none.
    """
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise invalid(f"{name} is not JSON: {error}"[:200]) from error
    if not isinstance(value, dict):
        raise invalid(f"{name} must be an object")
    return value
