"""What the stages learn from: the request's images as inputs of the first segment that may
change, and its texts.
"""

from functools import cached_property
from math import ceil
from typing import NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn

from shared.errors import JobFailure
from worker.clip import zero_shot_classifier
from worker.data.images import ImageSet
from worker.data_parallel import encoded_together
from worker.methods.engine.prompt_bank import PromptBank, own_names, prompt_bank
from worker.methods.engine.tower import Tower
from worker.methods.engine.views import cutmix, degraded, views
from worker.methods.frame import Erasure

UNKNOWN = -1
PROXY_IMAGES = 96
"""Drawn of the retain images: half as many mixtures are made of them, and one degraded image of
each.
"""
VIEWS = {"forget": 3, "retain": 2}
"""Views of each image, where `max_images` allows: held-out images of the target gave way to seen
ones otherwise.
"""
CALIBRATION_VIEWS = 24
"""Of the calibration images of the target, in all, where these are fewer: four images as they
are tell too little of a fifth.
"""
ENCODE_BATCH = 64


class Sizes(Protocol):
    """What the preparation needs to know of a method's parameters."""

    @property
    def depth(self) -> float:
        """Share of the image tower, from its end, that may change."""

    @property
    def max_images(self) -> int:
        """Taken of each data set."""


class Images(NamedTuple):
    """N images on their way through the tower."""

    inputs: Tensor
    """[N, ...]: what enters segment `Material.start`."""
    original: Tensor
    """[N, d]: their unit features in the original model."""
    labels: Tensor
    """[N], on the CPU: indices into `Erasure.labels`; -1 where an image's class is none of them."""

    def where(self, index: Tensor) -> "Images":
        """Return the images at `index`: positions, or a mask [N]; on the CPU."""
        return Images(self.inputs[index], self.original[index], self.labels[index])

    def sample(self, count: int, generator: torch.Generator) -> "Images":
        """Return `count` images drawn with replacement."""
        return self.where(torch.randint(len(self.labels), (count,), generator=generator))


class Material:
    """Images and texts of one erasure, prepared when first asked for and shared by the stages of
    one process.
    """

    def __init__(self, erasure: Erasure, parameters: Sizes) -> None:
        self.erasure = erasure
        self.tower = Tower(cast(nn.Module, erasure.clip.model.visual).requires_grad_(False))
        self.original = Tower(cast(nn.Module, erasure.original.model.visual))
        self.scale = erasure.original.logit_scale
        self.classifier = zero_shot_classifier(
            erasure.original, erasure.labels, erasure.request.target.templates
        )
        """[C, d]: one unit vector for each label, from the request's templates."""
        self.candidates = self.tower.weights(
            round(len(self.tower.segments) * (1 - parameters.depth))
        )
        """The weights among which stage 1 chooses: those in the last `depth` of the tower."""
        self.start = self._first_segment(self.edited or self.candidates)
        self._max_images = parameters.max_images
        self._images: dict[str, Images] = {}

    @cached_property
    def bank(self) -> PromptBank:
        """The texts of the guard: the request's names and, where they are coarse, the one that
        the forget images have.
        """
        found = own_names(self.erasure, self.forget.original)
        if found:
            self.erasure.notes["also_guarded"] = list(found)
        return prompt_bank(self.erasure, self.classifier, also=found)

    @property
    def edited(self) -> list[str]:
        """Names of the weights that stage 1 chose. They stand in `Erasure.state`, so that a new
        process knows them.
        """
        return [
            self.candidates[index]
            for index in self.erasure.state.get("edited_weights", torch.empty(0)).long()
        ]

    def edit(self, names: list[str]) -> None:
        """Choose the weights that the stages edit. All inputs move forward to the first of them."""
        self.erasure.state["edited_weights"] = torch.tensor(
            [self.candidates.index(name) for name in names]
        )
        segment = self._first_segment(names)
        for role, images in self._images.items():
            self._images[role] = images._replace(
                inputs=self._advance(images.inputs, self.start, segment)
            )
        self.start = segment

    @property
    def forget(self) -> Images:
        """Images of what is to be forgotten."""
        return self._loaded("forget")

    @property
    def retain(self) -> Images:
        """Images of what must stay."""
        return self._loaded("retain")

    @property
    def calibration_forget(self) -> Images:
        """Forget images that choose the mixing weight; where there are none apart, those of the
        training.
        """
        return self._loaded(
            "calibration_forget" if self.erasure.data.calibration_forget else "forget"
        )

    @property
    def calibration_retain(self) -> Images:
        """Retain images that choose the mixing weight; where there are none apart, those of the
        training.
        """
        return self._loaded(
            "calibration_retain" if self.erasure.data.calibration_retain else "retain"
        )

    @property
    def proxy(self) -> Images:
        """Unlabelled images of anything: the request's, else what can be made of retain images."""
        if "proxy" not in self._images:
            pixels = self.proxy_pixels()
            self._images["proxy"] = self.encode(pixels, torch.full((len(pixels),), UNKNOWN))
        return self._images["proxy"]

    @property
    def earlier(self) -> Images | None:
        """Images of what earlier erasures took away, where the request gives any: the original
        does not know them.
        """
        return self._loaded("earlier") if self.erasure.data.earlier is not None else None

    def unlabelled(self, count: int, generator: torch.Generator) -> Images:
        """Draw `count` proxy images, and half as many of what earlier erasures took away, where
        there are any.
        """
        drawn = [self.proxy.sample(count, generator)]
        if self.earlier is not None:
            drawn.append(self.earlier.sample(count // 2, generator))
        return Images(*map(torch.cat, zip(*drawn, strict=True)))

    def proxy_pixels(self) -> Tensor:
        """Return the pixels [N, 3, H, W] of the proxy images."""
        generator = self.erasure.generator(salt=2)
        if self.erasure.data.proxy is not None:
            return self._chosen(self.erasure.data.proxy).pixels(self.erasure.clip.transform)
        retain = cast(ImageSet, self.erasure.data.retain)
        drawn = torch.randint(len(retain), (PROXY_IMAGES,), generator=generator).tolist()
        pixels = retain.subset(drawn).pixels(self.erasure.clip.transform)
        first, second = pixels.split(PROXY_IMAGES // 2)
        return torch.cat([cutmix(first, second, generator), degraded(pixels, generator)])

    def pixels(self, role: str) -> tuple[Tensor, Tensor]:
        """Return pixels [N, 3, H, W] and labels [N] of one of the request's sets, every image in
        as many views as it gets.
        """
        chosen = self._chosen(getattr(self.erasure.data, role))
        wanted = (
            ceil(CALIBRATION_VIEWS / len(chosen))
            if role == "calibration_forget"
            else VIEWS.get(role, 1)
        )
        count = max(1, min(wanted, self._max_images // len(chosen)))
        pixels = views(
            chosen.pixels(self.erasure.clip.transform), count, self.erasure.generator(salt=3)
        )
        return pixels, torch.tensor([self._label(name, role) for name in chosen.names()]).repeat(
            count
        )

    @torch.no_grad()
    def encode(self, pixels: Tensor, labels: Tensor) -> Images:
        """Return images ready for the stages."""
        inputs, original = [], []
        for part in pixels.split(ENCODE_BATCH):
            with self.erasure.precision():
                there = part.to(self.erasure.clip.device, memory_format=torch.channels_last)
                inputs.append(
                    encoded_together(lambda own: self.original(own, 0, self.start), there)
                )
                original.append(
                    encoded_together(lambda own: self.original(own, self.start), inputs[-1])
                )
        return Images(torch.cat(inputs), torch.cat(original), labels)

    def _loaded(self, role: str) -> Images:
        if role not in self._images:
            self._images[role] = self.encode(*self.pixels(role))
        return self._images[role]

    def _chosen(self, images: ImageSet) -> ImageSet:
        order: list[int] = torch.randperm(
            len(images), generator=self.erasure.generator(salt=1)
        ).tolist()
        return images.subset(sorted(order[: self._max_images]))

    def _label(self, name: str, role: str) -> int:
        labels, forgotten = self.erasure.labels, self.erasure.forget_labels
        if name in labels:
            return labels.index(name)
        if not role.endswith("forget"):
            return UNKNOWN
        if len(forgotten) > 1:
            words = "several classes are to be forgotten, so its folders must be named after them"
            raise JobFailure(
                "invalid_dataset",
                f"data.forget has a folder {name!r}, which is none of the labels; {words}",
            )
        return forgotten[0]

    def _first_segment(self, names: list[str]) -> int:
        return min(self.tower.segment_of(name) for name in names)

    @torch.no_grad()
    def _advance(self, inputs: Tensor, start: int, stop: int) -> Tensor:
        if start == stop:
            return inputs
        with self.erasure.precision():
            return torch.cat(
                [
                    encoded_together(lambda own: self.original(own, start, stop), part)
                    for part in inputs.split(ENCODE_BATCH)
                ]
            )


def balanced_indices(labels: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Draw `size` indices into `labels`, each by drawing a class, then one of its images: every
    class counts the same.
    """
    classes = [(labels == label).nonzero().flatten() for label in labels.unique()]
    drawn = torch.randint(len(classes), (size,), generator=generator).tolist()
    places = torch.rand(size, generator=generator).tolist()
    return torch.stack(
        [classes[k][int(place * len(classes[k]))] for k, place in zip(drawn, places, strict=True)]
    )
