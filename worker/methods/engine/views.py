"""New images out of given ones: other views of the same thing, and mixtures that show nothing as
it was.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

SMALLEST_CROP = 0.6
"""Share of the side of an image."""
GREY = 0.3
"""Share of degraded images without colour."""


def views(pixels: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return [count * N, 3, H, W]: `pixels` [N, 3, H, W] as they are, then mirrored and cropped
    at random `count` - 1 times.
    """
    return torch.cat([pixels, *(_mirrored_crops(pixels, generator) for _ in range(count - 1))])


def _mirrored_crops(pixels: Tensor, generator: torch.Generator) -> Tensor:
    size = pixels.shape[-1]
    crops = []
    for image in pixels:
        share, top, left, mirror = torch.rand(4, generator=generator).tolist()
        side = round(size * (SMALLEST_CROP + (1 - SMALLEST_CROP) * share))
        top, left = round(top * (size - side)), round(left * (size - side))
        crop = image[:, top : top + side, left : left + side]
        crop = F.interpolate(crop[None], size=(size, size), mode="bilinear", align_corners=False)[0]
        crops.append(crop.flip(-1) if mirror < 0.5 else crop)
    return torch.stack(crops)


def degraded(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Return `pixels` [N, 3, H, W], normalised, as a worse camera shows them: coarse, of other
    contrast, some in grey.

    They stand in for photographs of another kind than those at hand.
    """
    size = pixels.shape[-1]
    result = []
    for image in pixels:
        coarseness, colour, contrast, light = torch.rand(4, generator=generator).tolist()
        side = max(1, round(size * (0.1 + 0.45 * coarseness)))
        small = F.interpolate(image[None], size=(side, side), mode="area")
        coarse = F.interpolate(small, size=(size, size), mode="bicubic", align_corners=False)[0]
        if colour < GREY:
            coarse = coarse.mean(dim=0, keepdim=True).expand_as(coarse)
        result.append((coarse * (0.7 + 0.6 * contrast) + 0.6 * (light - 0.5)).flip(-1))
    return torch.stack(result)


def cutmix(first: Tensor, second: Tensor, generator: torch.Generator) -> Tensor:
    """Return `first` [N, 3, H, W] with a rectangle of half its sides, placed at random, out of
    `second` (Yun et al. 2019).
    """
    mixed, (height, width) = first.clone(), first.shape[-2:]
    tops = torch.randint(height // 2 + 1, (len(first),), generator=generator).tolist()
    lefts = torch.randint(width // 2 + 1, (len(first),), generator=generator).tolist()
    for image, other, top, left in zip(mixed, second, tops, lefts, strict=True):
        window = (slice(None), slice(top, top + height // 2), slice(left, left + width // 2))
        image[window] = other[window]
    return mixed
