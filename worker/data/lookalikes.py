"""Images that look the same though their files differ: another format, another size, saved again.

Each image becomes a thumbnail of 16 x 16 pixels less the mean of each colour, at unit length;
two images look the same where the cosine of their thumbnails is `SAME` at least: a hint, not a
proof. Photographs of one sky may be found as well; a picture of one colour has nothing to
compare and looks like none."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from shared.errors import InvalidRequest, JobFailure
from shared.files.decoding import decoded
from shared.settings import get_settings

SIDE = 16
SAME = 0.96
"""Of 2,560,000 pairs of the demo's drawings the closest has 0.91. Saved as JPEG of quality 75,
halved or doubled, all 1,600 of them are found; of quality 40 all but 2. Of 10,000 test images of
CIFAR-10, 51 have one like them among 20,000 for training."""
BLANK = 0.01
"""Standard deviation of a thumbnail, of values in [0, 1], below which it shows nothing."""
BLOCK = 4096


def thumbnails(paths: Sequence[Path]) -> Tensor:
    """Return the thumbnails of images, [N, 768], at unit length or zero.

    Raises:
        JobFailure: `invalid_dataset`: one of them cannot be decoded.
    """
    with ThreadPoolExecutor() as pool:
        pixels = list(pool.map(_thumbnail, paths))
    if not pixels:
        return torch.zeros(0, SIDE * SIDE * 3)
    colours = torch.from_numpy(np.stack(pixels))
    values = (colours - colours.mean(dim=(1, 2), keepdim=True)).flatten(1)
    shows = values.std(dim=1, keepdim=True) >= BLANK
    return F.normalize(values, dim=1) * shows


def lookalikes(these: Tensor, those: Tensor) -> Tensor:
    """Return which of N thumbnails look like one of M others, and like which: its index or -1,
    [N].
    """
    found = torch.full((len(these),), -1, dtype=torch.long)
    if not len(those):
        return found
    for start in range(0, len(these), BLOCK):
        best = (these[start : start + BLOCK] @ those.T).max(dim=1)
        found[start : start + BLOCK] = torch.where(best.values >= SAME, best.indices, -1)
    return found


def _thumbnail(path: Path) -> NDArray[np.float32]:
    try:
        image = decoded(path, path.name, get_settings().max_image_pixels)
    except InvalidRequest as error:
        raise JobFailure(
            "invalid_dataset", f"An image cannot be used: {error.errors[0].detail}"
        ) from error
    small = image.resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32) / np.float32(255)
