"""Which tensors open_clip's own towers have, by name and shape, from the config alone.

A tower of timm or transformers has names that only those libraries know: of it the prefix alone
is told."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from shared.files.errors import invalid
from shared.schemas.clip_config import ModelConfig, MultimodalConfig, TextConfig, VisionConfig
from shared.weights.tensor_files import Shape, TensorInfo

Entry = tuple[str, Shape]
BLOCKS = "transformer.resblocks."
CONFIG = "open_clip_config.json"
CONTEXT, VOCABULARY = 77, 49408


@dataclass(frozen=True, slots=True)
class Expected:
    """What a model of a config holds."""

    shapes: dict[str, Shape]
    optional: frozenset[str] = frozenset()
    """Of `shapes`: what open_clip fills in where it is missing."""
    open: tuple[str, ...] = ()
    """Prefixes below which any tensor may lie."""
    fields: dict[str, str] = field(default_factory=dict)
    """For some tensors the fields of the config that decide on their shape."""

    def known(self, name: str) -> bool:
        """True where a model of the config may hold a tensor of this name."""
        return name in self.shapes or name.startswith(self.open)


def expected_tensors(config: ModelConfig) -> Expected:
    """Return what `open_clip.create_model` builds from a config, with the defaults of open_clip."""
    text_prefix = "text." if is_custom(config) else ""
    vision, text = config.vision_cfg, config.text_cfg
    shapes: dict[str, Shape] = {"logit_scale": (1,) if config.nonscalar_logit_scale else ()}
    optional = set()
    if config.init_logit_bias is not None:
        shapes["logit_bias"] = shapes["logit_scale"]
        optional.add("logit_bias")
    unknown = []
    if vision.timm_model_name:
        unknown.append("visual.")
    else:
        rows = (
            _resnet(vision, config.embed_dim)
            if isinstance(vision.layers, tuple)
            else _vit(vision, config.embed_dim)
        )
        shapes |= {f"visual.{name}": shape for name, shape in rows}
    if text.hf_model_name:
        unknown.append("text.")
    else:
        shapes |= {text_prefix + name: shape for name, shape in _text(text, config.embed_dim)}
    if config.custom_text and config.multimodal_cfg is not None:
        unknown.append("text_decoder.")
    counters = {name for name in shapes if name.endswith("num_batches_tracked")}
    return Expected(shapes, frozenset(optional | counters), tuple(unknown), _fields(text_prefix))


def openai_config(infos: Mapping[str, TensorInfo]) -> dict[str, Any]:
    """Return the `model_cfg` of a model in OpenAI's layout from the shapes of its tensors, as
    OpenAI's own loader does.

    Raises:
        InvalidRequest: the tensors are no such model's.
    """
    shapes = {name: info.shape for name, info in infos.items()}
    try:
        pieces = (
            shapes["text_projection"],
            shapes["token_embedding.weight"],
            shapes["positional_embedding"],
        )
        (width, embed_dim), (vocabulary, _), (context, _) = pieces
        if "visual.proj" in shapes:
            vision = _openai_vit(shapes)
        else:
            side = math.isqrt(shapes["visual.attnpool.positional_embedding"][0] - 1)
            stem = shapes["visual.layer1.0.conv1.weight"][0]
            stages = [_count(shapes, f"visual.layer{number}.") for number in range(1, 5)]
            vision = {"layers": stages, "width": stem, "patch_size": None, "image_size": 32 * side}
    except (KeyError, ValueError, IndexError) as error:
        raise invalid(
            f"there is no {CONFIG} beside the weights, and they are not in the layout of OpenAI's "
            f"CLIP ({error});"
            " give the config, or the architecture"
        ) from error
    text = {
        "context_length": context,
        "vocab_size": vocabulary,
        "width": width,
        "heads": max(1, width // 64),
        "layers": _count(shapes, BLOCKS),
    }
    return {"embed_dim": embed_dim, "quick_gelu": True, "vision_cfg": vision, "text_cfg": text}


def _openai_vit(shapes: Mapping[str, Shape]) -> dict[str, Any]:
    width, _, _, patch = shapes["visual.conv1.weight"]
    side = math.isqrt(shapes["visual.positional_embedding"][0] - 1)
    layers = _count(shapes, f"visual.{BLOCKS}")
    head_width = min(64, width)
    return {
        "layers": layers,
        "width": width,
        "head_width": head_width,
        "patch_size": patch,
        "image_size": patch * side,
    }


def _count(shapes: Mapping[str, Shape], start: str) -> int:
    return len(
        {name.removeprefix(start).split(".")[0] for name in shapes if name.startswith(start)}
    )


def is_custom(config: ModelConfig) -> bool:
    """True where open_clip puts the text tower below `text.`."""
    return bool(config.custom_text) or config.text_cfg.hf_model_name is not None


def _vit(config: VisionConfig, embed_dim: int) -> Iterator[Entry]:
    width, patch = config.width or 768, config.patch_size or 16
    size = config.image_size or 224
    height, across = size if isinstance(size, tuple) else (size, size)
    yield "conv1.weight", (width, 3, patch, patch)
    yield "class_embedding", (width,)
    yield "positional_embedding", ((height // patch) * (across // patch) + 1, width)
    if not config.no_ln_pre:
        yield from _norm("ln_pre", width, config)
    layers = config.layers if isinstance(config.layers, int) else 12
    yield from _blocks(config, width, layers)
    pooled = width
    if config.attentional_pool:
        pooled = embed_dim
        yield from _pooler("attn_pool", embed_dim, width, config.attn_pooler_queries or 256)
        if isinstance(config.attentional_pool, str):
            yield from _pooler("attn_pool_contrastive", embed_dim, width, 1)
    yield from _norm("ln_post", pooled, config)
    yield "proj", (pooled, embed_dim)


def _text(config: TextConfig | MultimodalConfig, embed_dim: int) -> Iterator[Entry]:
    width = config.width or 512
    yield "token_embedding.weight", (config.vocab_size or VOCABULARY, width)
    if config.embed_cls:
        yield "cls_emb", (width,)
    yield (
        "positional_embedding",
        ((config.context_length or CONTEXT) + bool(config.embed_cls), width),
    )
    yield from _blocks(config, width, config.layers or 12)
    yield from _norm("ln_final", width, config)
    if config.proj_type == "none":
        return
    if config.proj_bias:
        yield "text_projection.weight", (embed_dim, width)
        yield "text_projection.bias", (embed_dim,)
    else:
        yield "text_projection", (width, embed_dim)


def _blocks(config: VisionConfig | TextConfig, width: int, layers: int) -> Iterator[Entry]:
    hidden = int(width * (4.0 if config.mlp_ratio is None else config.mlp_ratio))
    heads = _heads(config, width)
    for number in range(layers):
        for name, shape in _block(config, width, hidden, heads):
            yield f"{BLOCKS}{number}.{name}", shape


def _block(
    config: VisionConfig | TextConfig, width: int, hidden: int, heads: int
) -> Iterator[Entry]:
    scaled = (
        config.qk_norm,
        config.scaled_cosine_attn,
        config.scale_heads,
        config.scale_attn_inner,
    )
    custom = config.block_type == "custom" or any((*scaled, config.scale_attn, config.scale_fc))
    yield from _norm("ln_1", width, config)
    yield from _norm("ln_2", width, config)
    yield "attn.in_proj_weight", (3 * width, width)
    yield "attn.in_proj_bias", (3 * width,)
    yield from _linear("attn.out_proj", width, width)
    yield from _linear("mlp.c_fc", width, hidden)
    yield from _linear("mlp.c_proj", hidden, width)
    if config.ls_init_value is not None:
        yield "ls_1.gamma", (width,)
        yield "ls_2.gamma", (width,)
    if not custom:
        return
    if config.qk_norm and not config.scaled_cosine_attn:
        yield from _norm("attn.ln_q", width // heads, config)
        yield from _norm("attn.ln_k", width // heads, config)
    if config.scaled_cosine_attn:
        yield "attn.logit_scale", (heads, 1, 1)
    if config.scale_heads:
        yield "attn.head_scale", (heads, 1, 1)
    if config.scale_attn_inner:
        yield from _norm("attn.ln_inner", width, config)
    if config.scale_attn:
        yield from _norm("ln_attn", width, config)
    if config.scale_fc:
        yield from _norm("mlp.ln", hidden, config)


def _heads(config: VisionConfig | TextConfig, width: int) -> int:
    if isinstance(config, TextConfig):
        return config.heads or 8
    return max(1, width // (config.head_width or 64))


def _pooler(name: str, width: int, context: int, queries: int) -> Iterator[Entry]:
    yield f"{name}.query", (queries, width)
    if width == context:
        yield f"{name}.attn.in_proj_weight", (3 * width, width)
    else:
        yield f"{name}.attn.q_proj_weight", (width, width)
        yield f"{name}.attn.k_proj_weight", (width, context)
        yield f"{name}.attn.v_proj_weight", (width, context)
    yield f"{name}.attn.in_proj_bias", (3 * width,)
    yield from _linear(f"{name}.attn.out_proj", width, width)
    for part, size in (("ln_q", width), ("ln_k", context)):
        yield f"{name}.{part}.weight", (size,)
        yield f"{name}.{part}.bias", (size,)


def _resnet(config: VisionConfig, embed_dim: int) -> Iterator[Entry]:
    layers = config.layers if isinstance(config.layers, tuple) else ()
    width = config.width or 64
    size = config.image_size or 224
    side = (size[0] if isinstance(size, tuple) else size) // 32
    for number, (inputs, outputs) in enumerate(
        [(3, width // 2), (width // 2, width // 2), (width // 2, width)], 1
    ):
        yield f"conv{number}.weight", (outputs, inputs, 3, 3)
        yield from _batch_norm(f"bn{number}", outputs)
    inputs = width
    for stage, count in enumerate(layers):
        planes = width * 2**stage
        for number in range(count):
            yield from _bottleneck(
                f"layer{stage + 1}.{number}", inputs, planes, stage > 0 and number == 0
            )
            inputs = 4 * planes
    pooled = 32 * width
    yield "attnpool.positional_embedding", (side**2 + 1, pooled)
    for part in ("k_proj", "q_proj", "v_proj"):
        yield from _linear(f"attnpool.{part}", pooled, pooled)
    yield from _linear("attnpool.c_proj", pooled, embed_dim)


def _bottleneck(name: str, inputs: int, planes: int, strided: bool) -> Iterator[Entry]:
    for number, shape in enumerate(
        [(planes, inputs, 1, 1), (planes, planes, 3, 3), (4 * planes, planes, 1, 1)], 1
    ):
        yield f"{name}.conv{number}.weight", shape
        yield from _batch_norm(f"{name}.bn{number}", shape[0])
    if strided or inputs != 4 * planes:
        yield f"{name}.downsample.0.weight", (4 * planes, inputs, 1, 1)
        yield from _batch_norm(f"{name}.downsample.1", 4 * planes)


def _batch_norm(name: str, width: int) -> Iterator[Entry]:
    for part in ("weight", "bias", "running_mean", "running_var"):
        yield f"{name}.{part}", (width,)
    yield f"{name}.num_batches_tracked", ()


def _norm(name: str, width: int, config: VisionConfig | TextConfig) -> Iterator[Entry]:
    if config.norm_kwargs is None or config.norm_kwargs.elementwise_affine is not False:
        yield f"{name}.weight", (width,)
        yield f"{name}.bias", (width,)


def _linear(name: str, inputs: int, outputs: int) -> Iterator[Entry]:
    yield f"{name}.weight", (outputs, inputs)
    yield f"{name}.bias", (outputs,)


def _fields(text: str) -> dict[str, str]:
    return {
        "visual.conv1.weight": "vision_cfg.width and patch_size",
        "visual.positional_embedding": "vision_cfg.image_size and patch_size",
        "visual.attnpool.positional_embedding": "vision_cfg.image_size and width",
        "visual.proj": "vision_cfg.width and embed_dim",
        f"{text}token_embedding.weight": "text_cfg.vocab_size and width",
        f"{text}positional_embedding": "text_cfg.context_length and width",
        f"{text}text_projection": "text_cfg.width and embed_dim",
    }
