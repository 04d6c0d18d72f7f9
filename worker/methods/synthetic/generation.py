"""Images by gradient ascent on the original model, in batches.

Two generators: `Inverter`, multi-scale with augmentations, whose samples lie nearer to real
images; and `PublishedAscent`, the procedure of arXiv 2407.07485 with every quirk, batched with
each sample frozen once it is accepted."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.functional import gaussian_blur

from shared.errors import JobFailure
from shared.schemas.methods import SyntheticParameters
from worker.clip import Clip, encode_images
from worker.methods.frame import Erasure

BATCH_SIZE = 32
SCALES = (32, 16, 8, 4)
"""The pyramid's grids are the image's side divided by these."""
LEARNING_RATE = 0.08
TOTAL_VARIATION = 0.5


Made = Callable[[int], None]
"""Is told how many samples of a batch are done, or as good as done."""


class Inverter(NamedTuple):
    """Makes samples of a model's labels.

    x = sigmoid(up(P_1 + up(P_2 + ...))), the P_k a pyramid of grids, each coarser than the one
    before; minimised by Adam: CE(s cos(f(augment(x)), W), y) + TV(x)."""

    erasure: Erasure
    classifier: Tensor
    """W [C, d]"""
    iterations: int

    def batch(self, labels: Tensor, number: int, made: Made) -> Tensor:
        """Return one sample [N, 3, H, W] (normalised pixels) for each label [N]; `number` tells
        batches of one seed apart.
        """
        clip, generator = self.erasure.original, self.erasure.generator(1000 + number)
        size, target = clip.image_size, labels.to(clip.device)
        grids = [max(2, size // scale) for scale in SCALES]
        pyramid = [
            torch.randn(len(labels), 3, g, g, generator=generator).mul(0.5).to(clip.device)
            for g in grids
        ]
        for level in pyramid:
            level.requires_grad_()
        optimizer = torch.optim.Adam(pyramid, lr=LEARNING_RATE)
        for iteration in range(self.iterations):
            made(len(labels) * iteration // self.iterations)
            images = _pixels(pyramid, size)
            with self.erasure.precision():
                features = encode_images(clip, _normalised(_augmented(images, generator), clip))
            recognised = F.cross_entropy(
                clip.logit_scale * features.float() @ self.classifier.T, target
            )
            loss = recognised + TOTAL_VARIATION * total_variation(images)
            gradients = torch.autograd.grad(loss, pyramid)
            for level, gradient in zip(pyramid, gradients, strict=True):
                level.grad = gradient
            optimizer.step()
        return _normalised(_pixels(pyramid, size).detach(), clip).cpu()


def _pixels(pyramid: list[Tensor], size: int) -> Tensor:
    """Return images [N, 3, size, size] in [0, 1]."""
    image = pyramid[0]
    for finer in pyramid[1:]:
        image = (
            F.interpolate(image, size=finer.shape[-1], mode="bilinear", align_corners=False) + finer
        )
    return F.interpolate(image, size=size, mode="bilinear", align_corners=False).sigmoid()


def _augmented(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return each image under a random crop (60 to 100 % of the side), flip, gain and noise."""
    n, device = len(images), images.device

    def uniform(low: float, high: float) -> Tensor:
        return torch.empty(n).uniform_(low, high, generator=generator)

    side = uniform(0.6, 1.0)
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0] = side * (2.0 * (uniform(0, 1) < 0.5) - 1.0)
    theta[:, 1, 1] = side
    theta[:, 0, 2], theta[:, 1, 2] = uniform(-1, 1) * (1 - side), uniform(-1, 1) * (1 - side)
    grid = F.affine_grid(theta.to(device), list(images.shape), align_corners=False)
    views = F.grid_sample(images, grid, align_corners=False, padding_mode="reflection")
    gain = uniform(0.8, 1.2).view(n, 1, 1, 1).to(device)
    noise = torch.randn(images.shape, generator=generator).to(device)
    return views * gain + 0.02 * noise


def total_variation(images: Tensor) -> Tensor:
    """Return the mean absolute difference of neighbouring pixels, over images [N, 3, H, W]."""
    down = (images[..., 1:, :] - images[..., :-1, :]).abs().mean()
    across = (images[..., :, 1:] - images[..., :, :-1]).abs().mean()
    return down + across


def _normalised(images: Tensor, clip: Clip) -> Tensor:
    """Return pixels in [0, 1] as the model wants them, channels last: convolutions are faster
    so.
    """
    mean, std = (
        torch.tensor(v, device=images.device).view(1, 3, 1, 1) for v in (clip.mean, clip.std)
    )
    return ((images - mean) / std).contiguous(memory_format=torch.channels_last)


# The published procedure.

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
STEP_SIZE = 25.0
JITTER = 16
BLUR_EVERY, BLUR_SIGMA = 10, 0.5
L2 = 1e-3
ACCEPTANCE_FLOOR, ACCEPTANCE_STEP = 0.45, 0.025
ACCEPTANCE_SCALE = 100.0


class PublishedAscent(NamedTuple):
    """Makes accepted samples as arXiv 2407.07485 does.

    Ascent on  exp(logit_scale) cos(f(n(x)), W_y) - 1e-3 ||x||_2  with a normalised gradient step
    of 25, jitter, blur every tenth step, and acceptance when the rescaled image is classified as
    y with confidence over a bar. Decided as published: x lives in ImageNet-normalised space and
    CLIP's normalisation is applied on top of it in the ascent (not in the acceptance test); the
    bar falls by 0.025, to 0.45 at the least, for a sample that had to be started anew. Decided
    otherwise: samples run in batches, each frozen once accepted (batch normalisation is in eval
    mode, so they do not touch one another); and the number of new starts is bounded."""

    erasure: Erasure
    classifier: Tensor
    """W [C, d]"""
    parameters: SyntheticParameters

    def batch(self, labels: Tensor, number: int, made: Made) -> Tensor:
        """Return one accepted sample (normalised pixels) for each label [N]; `number` tells batches
        of one seed apart.

        Raises:
            JobFailure: `method_failed`: some samples were never accepted.
        """
        generator = self.erasure.generator(2000 + number)
        size, iterations = self.erasure.original.image_size, self.parameters.published_iterations
        samples = torch.zeros(len(labels), 3, size, size)
        waiting = torch.arange(len(labels))
        bar = self.parameters.acceptance
        for _ in range(self.parameters.max_starts):
            found, accepted = ascend(
                self.erasure, self.classifier, labels[waiting], iterations, bar, generator
            )
            samples[waiting[accepted]] = found[accepted]
            waiting = waiting[~accepted]
            made(len(labels) - len(waiting))
            if not len(waiting):
                return samples
            bar = max(bar - ACCEPTANCE_STEP, ACCEPTANCE_FLOOR)
        raise JobFailure(
            "method_failed",
            f"{len(waiting)} of {len(labels)} synthetic samples were never accepted.",
        )


def ascend(
    erasure: Erasure,
    classifier: Tensor,
    labels: Tensor,
    iterations: int,
    bar: float,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Return samples (normalised pixels) and which of them were accepted."""
    clip, size = erasure.original, erasure.original.image_size
    x = torch.randn(len(labels), 3, size, size, generator=generator).to(clip.device)
    accepted = torch.zeros(len(labels), dtype=torch.bool)
    found = torch.zeros_like(x, device="cpu")
    low, high = (
        torch.tensor(
            [(v - m) / s for m, s in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)], device=x.device
        ).view(1, 3, 1, 1)
        for v in (0.0, 1.0)
    )
    for t in range(iterations):
        active = (~accepted).nonzero().flatten()
        if not len(active):
            break
        part, wanted = x[active], labels[active].to(x.device)
        shift = torch.randint(0, JITTER + 1, (2,), generator=generator).tolist()
        moved = part.roll(shift, dims=(2, 3)).requires_grad_()
        with erasure.precision():
            features = encode_images(
                clip, _normalised(moved, clip)
            )  # quirk: x is normalised already
        logits = clip.logit_scale * features.float() @ classifier.T
        score = logits.gather(1, wanted[:, None]).sum() - L2 * moved.flatten(1).norm(dim=1).sum()
        (gradient,) = torch.autograd.grad(score, moved)
        unit = gradient / gradient.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, 1, 1, 1)
        part = (
            (moved.detach() + STEP_SIZE * unit)
            .roll([-s for s in shift], dims=(2, 3))
            .clamp(low, high)
        )
        if t % BLUR_EVERY == 0:
            part = gaussian_blur(part, [5, 5], [BLUR_SIGMA, BLUR_SIGMA])
        x[active] = part
        ready, shown = _accepted(erasure, classifier, part, wanted, bar)
        found[active[ready]] = shown[ready]
        accepted[active[ready]] = True
    return found, accepted


@torch.no_grad()
def _accepted(
    erasure: Erasure, classifier: Tensor, x: Tensor, labels: Tensor, bar: float
) -> tuple[Tensor, Tensor]:
    """Return which samples pass the acceptance test, and all as normalised pixels; both on the
    CPU.
    """
    clip = erasure.original
    mean, std = (
        torch.tensor(v, device=x.device).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD)
    )
    shown = x * std + mean
    low, high = shown.amin(dim=(1, 2, 3), keepdim=True), shown.amax(dim=(1, 2, 3), keepdim=True)
    pixels = _normalised((shown - low) / (high - low).clamp_min(1e-12), clip)
    with erasure.precision():
        features = encode_images(clip, pixels)
    confidence, predicted = (
        (ACCEPTANCE_SCALE * features.float() @ classifier.T).softmax(dim=1).max(dim=1)
    )
    return ((predicted == labels) & (confidence > bar)).cpu(), pixels.cpu()
