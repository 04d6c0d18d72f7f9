"""A contact sheet of samples, small enough to stand in the report."""

import base64
import io

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torchvision.utils import make_grid

from worker.clip import Clip

SIDE, COLUMNS, MOST = 64, 8, 32


def contact_sheet(clip: Clip, samples: Tensor) -> str:
    """Return up to 32 samples [N, 3, H, W] (normalised pixels) side by side, 64 pixels each, as
    a data URI of a JPEG.
    """
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (clip.mean, clip.std))
    pixels = (samples[:MOST].cpu().float() * std + mean).clamp(0, 1)
    small = F.interpolate(pixels, size=SIDE, mode="bilinear", antialias=True, align_corners=False)
    grid = make_grid(small, nrow=COLUMNS, padding=1).mul(255).byte().permute(1, 2, 0).contiguous()
    file = io.BytesIO()
    Image.fromarray(grid.numpy()).save(file, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
