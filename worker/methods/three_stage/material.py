"""What the stages learn from: the request's images as inputs of the first segment that may change, and its texts."""

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from shared.errors import JobFailure
from shared.schemas.methods import ThreeStageParameters
from worker.clip import zero_shot_classifier
from worker.data.images import ImageSet
from worker.methods.frame import Erasure
from worker.methods.three_stage.prompts import PromptBank, prompt_bank
from worker.methods.three_stage.tower import Tower, advance

PROXY_IMAGES = 64
UNKNOWN = -1


class Images(NamedTuple):
    """N images on their way through the tower."""

    inputs: Tensor
    """[N, ...]: what enters segment `Material.start` of the tower."""
    original: Tensor
    """[N, d]: their unit features in the original model."""
    labels: Tensor
    """[N], on the CPU: indices into `Erasure.labels`; -1 where an image's class is none of them."""


class Material:
    """Images and texts of one erasure, prepared when first asked for and shared by the stages of one process."""

    def __init__(self, erasure: Erasure, parameters: ThreeStageParameters) -> None:
        self._erasure = erasure
        self.tower = Tower(cast(nn.Module, erasure.clip.model.visual))
        self.original = Tower(cast(nn.Module, erasure.original.model.visual))
        self.first_candidate = round(len(self.tower.segments) * (1 - parameters.depth))
        self.start = self.first_candidate
        if "edited_layers" in erasure.state:
            self.start = min(self.tower.segment_of(name) for name in self.edited_layers())
        self.scale = erasure.original.logit_scale
        self.classifier = zero_shot_classifier(erasure.original, erasure.labels, erasure.request.target.templates)
        self.bank: PromptBank = prompt_bank(erasure, self.classifier)
        self._max_images = parameters.max_images
        self._images: dict[str, Images] = {}

    @property
    def forget(self) -> Images:
        """Images of what is to be forgotten; those without a known class carry the only forgotten one."""
        return self._get("forget")

    @property
    def retain(self) -> Images:
        """Images of what must stay."""
        return self._get("retain")

    @property
    def proxy(self) -> Images:
        """Unlabelled images of anything: the request's, else mixtures of retain images."""
        return self._get("proxy")

    @property
    def calibration(self) -> tuple[Images, Images]:
        """Forget and retain images on which the mixing weight is chosen; the training images where there are no others."""
        data = self._erasure.data
        return (
            self._get("calibration_forget" if data.calibration_forget else "forget"),
            self._get("calibration_retain" if data.calibration_retain else "retain"),
        )

    def edited_layers(self) -> list[str]:
        """Return the names of the weights that stage 1 chose, as kept in `Erasure.state`."""
        candidates = self.tower.weights(self.first_candidate)
        return [candidates[index] for index in self._erasure.state["edited_layers"].tolist()]

    def start_at(self, segment: int) -> None:
        """Move all inputs forward to `segment`: nothing before it will change any more."""
        for role, images in self._images.items():
            with self._erasure.precision():
                moved = advance(self.original, images.inputs, self.start, segment)
            self._images[role] = images._replace(inputs=moved)
        self.start = segment

    def _get(self, role: str) -> Images:
        if role not in self._images:
            self._images[role] = (
                self._proxy() if role == "proxy" else self._load(role, getattr(self._erasure.data, role))
            )
        return self._images[role]

    def _load(self, role: str, images: ImageSet) -> Images:
        chosen = images.subset(self._sample(len(images)))
        labels = torch.tensor([self._label(name, role) for name in chosen.names()])
        return self._encode(chosen.pixels(self._erasure.clip.transform), labels)

    def _sample(self, count: int) -> list[int]:
        order: list[int] = torch.randperm(count, generator=self._erasure.generator(salt=1)).tolist()
        return sorted(order[: self._max_images])

    def _label(self, name: str, role: str) -> int:
        labels, forgotten = self._erasure.labels, self._erasure.forget_labels
        if name in labels:
            return labels.index(name)
        if not role.endswith("forget"):
            return UNKNOWN
        if len(forgotten) > 1:
            raise JobFailure(
                "invalid_dataset",
                f"data.forget has a class {name!r} that is not among the labels; name its folders after the classes to forget",
            )
        return forgotten[0]

    def _proxy(self) -> Images:
        given = self._erasure.data.proxy
        if given is not None:
            chosen = given.subset(self._sample(len(given)))
            pixels = chosen.pixels(self._erasure.clip.transform)
        else:
            pixels = self._mixtures()
        return self._encode(pixels, torch.full((len(pixels),), UNKNOWN))

    def _mixtures(self) -> Tensor:
        retain = self._erasure.data.retain
        assert retain is not None  # noqa: S101  (the request's schema asks for it)
        generator = self._erasure.generator(salt=2)
        pick = torch.randint(len(retain), (2, PROXY_IMAGES), generator=generator)
        first, second = (retain.subset(row.tolist()).pixels(self._erasure.clip.transform) for row in pick)
        return cutmix(first, second, generator)

    @torch.no_grad()
    def _encode(self, pixels: Tensor, labels: Tensor) -> Images:
        erasure = self._erasure
        inputs, original = [], []
        for part in pixels.split(64):
            with erasure.precision():
                moved = part.to(erasure.clip.device, memory_format=torch.channels_last)
                entering = self.original(moved, 0, self.start)
                original.append(self.original(entering, self.start))
            inputs.append(entering)
        return Images(torch.cat(inputs), torch.cat(original), labels)


def cutmix(first: Tensor, second: Tensor, generator: torch.Generator) -> Tensor:
    """Return `first` [N, 3, H, W] with a random rectangle of each image, half its sides, taken from `second` (Yun et al. 2019).

    The outcome shows no class as it was: material for distillation that asks the original model about more than the retain images.
    """
    mixed, (height, width) = first.clone(), first.shape[-2:]
    tops = torch.randint(height // 2 + 1, (len(first),), generator=generator).tolist()
    lefts = torch.randint(width // 2 + 1, (len(first),), generator=generator).tolist()
    for image, other, top, left in zip(mixed, second, tops, lefts, strict=True):
        window = (slice(None), slice(top, top + height // 2), slice(left, left + width // 2))
        image[window] = other[window]
    return mixed


SHARE = 0.5


def sibling_indices(labels: Tensor, siblings: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Draw `size` indices: half of them (all, where there are no others) from the siblings, the others class-balanced."""
    inside = torch.isin(labels, siblings)
    count = int(size * SHARE) if inside.any() else 0
    groups = ((inside, count), (~inside, size - count))
    return torch.cat(
        [
            (mask.nonzero().flatten().cpu())[balanced_indices(labels[mask], number, generator)]
            for mask, number in groups
            if number
        ]
    )


def balanced_indices(labels: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Draw `size` indices, each by drawing a class, then one of its images: a class counts the same whatever its share."""
    classes = [(labels == label).nonzero().flatten().cpu() for label in labels.unique()]
    drawn = torch.randint(len(classes), (size,), generator=generator).tolist()
    return torch.stack([classes[k][torch.randint(len(classes[k]), (), generator=generator)] for k in drawn])
