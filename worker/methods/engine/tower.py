"""The image tower as a chain of segments, so that what comes before the first edited layer is
computed once.
"""

from collections.abc import Callable
from typing import NamedTuple, cast

from open_clip.modified_resnet import ModifiedResNet
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F


class Segment(NamedTuple):
    """A piece of the tower: the prefixes of its parameters' names, and its forward pass."""

    prefixes: tuple[str, ...]
    forward: Callable[[Tensor], Tensor]


class Tower(nn.Module):
    """A view on `clip.model.visual` that can start and stop between segments. Shares the tower's
    parameters.
    """

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual
        self.segments = _segments(visual)

    def forward(self, x: Tensor, start: int = 0, stop: int | None = None) -> Tensor:
        """Return what leaves segment `stop - 1` when `x` enters segment `start`; at the end unit
        float32 features [N, d].
        """
        for segment in self.segments[start:stop]:
            x = segment.forward(x)
        return (
            x if stop is not None and stop < len(self.segments) else F.normalize(x.float(), dim=-1)
        )

    def segment_of(self, name: str) -> int:
        """Return the index of the segment to which the parameter `name` (as in
        `visual.named_parameters`) belongs.
        """
        for index, segment in enumerate(self.segments):
            if any(name.startswith(prefix) for prefix in segment.prefixes):
                return index
        raise ValueError(f"the image tower has no parameter {name!r}")

    def weights(self, first_segment: int = 0) -> list[str]:
        """Return the names of all weight matrices and kernels from `first_segment` on, in the order
        of the tower.

        Biases, norms, positions and class tokens are never edited: they shift every image alike.
        """
        embeddings = ("positional_embedding", "class_embedding", "latent", "query")
        return [
            name
            for name, parameter in self.visual.named_parameters()
            if parameter.ndim >= 2
            and not name.endswith(embeddings)
            and self.segment_of(name) >= first_segment
        ]


def _segments(visual: nn.Module) -> tuple[Segment, ...]:
    if isinstance(visual, ModifiedResNet):
        return _resnet_segments(visual)
    if isinstance(visual, VisionTransformer):
        return _vit_segments(visual)
    return (Segment(("",), cast(Callable[[Tensor], Tensor], visual)),)


def _resnet_segments(visual: ModifiedResNet) -> tuple[Segment, ...]:
    stem = Segment(("conv", "bn"), visual.stem)
    blocks = [
        Segment((f"layer{stage}.{index}.",), block)
        for stage in range(1, 5)
        for index, block in enumerate(getattr(visual, f"layer{stage}"))
    ]
    return (stem, *blocks, Segment(("attnpool.",), visual.attnpool))


def _vit_segments(visual: VisionTransformer) -> tuple[Segment, ...]:
    def head(x: Tensor) -> Tensor:
        pooled: Tensor = visual._pool(x)[0]
        return pooled if visual.proj is None else pooled @ visual.proj

    embedding = Segment(
        ("conv1.", "class_embedding", "positional_embedding", "ln_pre."), visual._embeds
    )
    blocks = [
        Segment((f"transformer.resblocks.{index}.",), block)
        for index, block in enumerate(visual.transformer.resblocks)
    ]
    return (embedding, *blocks, Segment(("ln_post.", "proj", "attn_pool"), head))


def batch_norms(visual: nn.Module) -> list[nn.BatchNorm2d]:
    """Return the BatchNorm layers of a tower that keep running statistics, in order; none for a
    vision transformer.
    """
    return [
        module
        for module in visual.modules()
        if isinstance(module, nn.BatchNorm2d) and module.track_running_stats
    ]


def residual_blocks(visual: nn.Module) -> list[nn.Module]:
    """Return the residual blocks of a vision transformer, in order; none for a ResNet."""
    return list(visual.transformer.resblocks) if isinstance(visual, VisionTransformer) else []
