"""`open_clip_config.json`: the fields that open_clip's models take, with ranges that no published
model comes near.

open_clip hands what it finds there to constructors of its own, of timm and of transformers. A
field that is not listed here, such as `trust_remote_code`, never gets that far."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from shared.schemas.base import Schema

MAX_PATCHES = 16_384
"""Of one image: attention costs their square."""

Width = Annotated[int, Field(strict=True, ge=1, le=16_384)]
Count = Annotated[int, Field(strict=True, ge=1, le=256)]
ImageSize = Annotated[int, Field(strict=True, ge=1, le=1024)]
Length = Annotated[int, Field(strict=True, ge=1, le=4096)]
Vocabulary = Annotated[int, Field(strict=True, ge=1, le=4_000_000)]
Factor = Annotated[float, Field(strict=True, ge=0, le=100, allow_inf_nan=False)]
Flag = Annotated[bool, Field(strict=True)]
Word = Annotated[str, Field(max_length=64, pattern=r"^[A-Za-z0-9_]*$")]
ArchitectureName = Annotated[
    str, StringConstraints(max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
]
"""A name that open_clip or timm knows. It has no colon or slash: `hf-hub:` and `local-dir:` are
places, not names.
"""
_PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
Repository = Annotated[str, StringConstraints(max_length=200, pattern=rf"^{_PART}(/{_PART})?$")]
"""Of Hugging Face's hub; no path: neither part begins with a dot."""


class NormArguments(Schema):
    """Of a normalisation layer."""

    eps: Factor | None = None
    elementwise_affine: Flag | None = None


class ActivationArguments(Schema):
    """Of an activation."""

    approximate: Literal["none", "tanh"] | None = None


class TokenizerArguments(Schema):
    """Of a tokenizer."""

    clean: Literal["lower", "whitespace", "canonicalize"] | None = None
    strip_sep_token: Flag | None = None
    language: Word | None = None


class _Tower(Schema):
    width: Width | None = None
    mlp_ratio: Factor | None = None
    ls_init_value: Factor | None = None
    final_ln_after_pool: Flag | None = None
    pool_type: Word | None = None
    output_tokens: Flag | None = None
    act_kwargs: ActivationArguments | None = None
    norm_kwargs: NormArguments | None = None
    block_type: Word | None = None
    qk_norm: Flag | None = None
    scaled_cosine_attn: Flag | None = None
    scale_heads: Flag | None = None
    scale_attn_inner: Flag | None = None
    scale_attn: Flag | None = None
    scale_fc: Flag | None = None


class VisionConfig(_Tower):
    """The image tower."""

    layers: Count | Annotated[tuple[Count, ...], Field(min_length=4, max_length=4)] | None = None
    head_width: Width | None = None
    patch_size: ImageSize | None = None
    image_size: (
        ImageSize | Annotated[tuple[ImageSize, ...], Field(min_length=2, max_length=2)] | None
    ) = None
    patch_dropout: Factor | None = None
    attentional_pool: Flag | Word | None = None
    attn_pooler_queries: Length | None = None
    attn_pooler_heads: Count | None = None
    no_ln_pre: Flag | None = None
    pos_embed_type: Word | None = None
    timm_model_name: ArchitectureName | None = None
    timm_model_pretrained: Flag | None = None
    timm_pool: Word | None = None
    timm_proj: Word | None = None
    timm_proj_bias: Flag | None = None
    timm_drop: Factor | None = None
    timm_drop_path: Factor | None = None

    def patches(self) -> int:
        """Return how many patches an image becomes; 0 where it is not cut into patches."""
        side = (
            max(self.image_size) if isinstance(self.image_size, tuple) else self.image_size or 224
        )
        return (side // self.patch_size) ** 2 if self.patch_size else 0


class TextConfig(_Tower):
    """The text tower."""

    layers: Count | None = None
    heads: Count | None = None
    context_length: Length | None = None
    vocab_size: Vocabulary | None = None
    hf_tokenizer_name: Repository | None = None
    tokenizer_mode: Word | None = None
    tokenizer_kwargs: TokenizerArguments | None = None
    embed_cls: Flag | None = None
    pad_id: Annotated[int, Field(strict=True, ge=0, le=4_000_000)] | None = None
    eos_id: Annotated[int, Field(strict=True, ge=0, le=4_000_000)] | None = None
    no_causal_mask: Flag | None = None
    proj_bias: Flag | None = None
    proj_type: Word | None = None
    hf_model_name: Repository | None = None
    hf_model_pretrained: Flag | None = None
    hf_proj_type: Word | None = None
    hf_pooler_type: Word | None = None


class MultimodalConfig(TextConfig):
    """The decoder of CoCa, which an erasure leaves alone."""

    dim_head: Width | None = None
    n_queries: Length | None = None
    attn_pooler_heads: Count | None = None


class ModelConfig(Schema):
    """What open_clip builds a model from."""

    embed_dim: Width
    vision_cfg: VisionConfig
    text_cfg: TextConfig
    multimodal_cfg: MultimodalConfig | None = None
    quick_gelu: Flag | None = None
    custom_text: Flag | None = None
    init_logit_scale: (
        Annotated[float, Field(strict=True, ge=-100, le=100, allow_inf_nan=False)] | None
    ) = None
    init_logit_bias: (
        Annotated[float, Field(strict=True, ge=-100, le=100, allow_inf_nan=False)] | None
    ) = None
    nonscalar_logit_scale: Flag | None = None


class PreprocessConfig(Schema):
    """How an image becomes a tensor."""

    size: ImageSize | Annotated[tuple[ImageSize, ...], Field(min_length=2, max_length=2)] | None = (
        None
    )
    mode: Literal["RGB"] | None = None
    mean: Annotated[tuple[Factor, ...], Field(min_length=3, max_length=3)] | None = None
    std: (
        Annotated[tuple[Annotated[Factor, Field(gt=0)], ...], Field(min_length=3, max_length=3)]
        | None
    ) = None
    interpolation: Literal["bicubic", "bilinear", "random"] | None = None
    resize_mode: Literal["shortest", "longest", "squash"] | None = None
    fill_color: Annotated[int, Field(strict=True, ge=0, le=255)] | None = None


class ClipConfig(Schema):
    """The whole file; `architecture`, a name that open_clip knows, may take the place of
    `model_cfg`.
    """

    architecture: ArchitectureName | None = None
    model_cfg: ModelConfig | None = None
    preprocess_cfg: PreprocessConfig | None = None

    def name(self) -> str:
        """Return the architecture for people: its name, or the sizes of the image tower."""
        if self.architecture is not None or self.model_cfg is None:
            return str(self.architecture)
        vision, text = self.model_cfg.vision_cfg, self.model_cfg.text_cfg
        beside = f" + {text.hf_model_name}" if text.hf_model_name else ""
        if vision.timm_model_name is not None:
            return vision.timm_model_name + beside
        side = vision.image_size or 224
        if isinstance(vision.layers, tuple):
            return f"RN {vision.width or 64}x{list(vision.layers)} @{side}{beside}"
        return (
            f"ViT/{vision.patch_size or 16} {vision.width or 768}x{vision.layers or 12} "
            f"@{side}{beside}"
        )
