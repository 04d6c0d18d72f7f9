"""Do captions and images still find each other? Where a place has captions.

Of the N pairs of a place that must stay, each image looks for its caption among all captions of
these pairs, and each caption for its image, by cosine (Radford et al. 2021). A caption that
several images have is right for each of them. Of pairs that show what is forgotten, the mean
cosine is taken: the association itself (SALMUBench, arXiv 2603.26316)."""

from functools import partial
from typing import NamedTuple, Self

import torch
from torch import Tensor

from shared.schemas.measure_catalogue import Need
from shared.schemas.measures import Value
from worker.evaluation.findings import Findings, found, missing, of_each
from worker.evaluation.intervals import mean, share
from worker.evaluation.subject import Subject
from worker.evaluation.views import Case, View

RANKS = (1, 5, 10)
FEWEST, MOST = 20, 2000
"""Pairs: with fewer nearly everything is among the first ten, and more take long."""
NAMES = tuple(f"retrieval_recall_{k}" for k in RANKS)


def measure(case: Case) -> Findings:
    """Yield recall at every rank for each place with captions that stay, and the likeness of
    pairs that should be forgotten.
    """
    stays = [
        (view, chosen)
        for view in case.views
        if len(chosen := _captioned(view, ~view.forget)) >= FEWEST
    ]
    goes = [(view, chosen) for view in case.views if len(chosen := _captioned(view, view.forget))]
    for view, chosen in stays:
        yield from _retention(case, view, chosen[:: -(-len(chosen) // MOST)])
    for view, chosen in goes:
        yield of_each(
            case,
            "forgotten_pair_similarity",
            view.name,
            partial(_likeness, _Pairs.of(view, chosen)),
        )
    if not stays:
        yield from missing(Need.CAPTIONS, *NAMES)
    if not goes:
        yield from missing(Need.CAPTIONS, "forgotten_pair_similarity")


def _captioned(view: View, mask: Tensor) -> list[int]:
    return [
        index
        for index, caption in enumerate(view.captions)
        if caption is not None and bool(mask[index])
    ]


class _Pairs(NamedTuple):
    """N images of a place, their M different captions, and which of these each image has [N]."""

    place: str
    images: list[int]
    captions: list[str]
    own: Tensor

    @classmethod
    def of(cls, view: View, chosen: list[int]) -> Self:
        captions = [view.captions[index] or "" for index in chosen]
        number = {caption: position for position, caption in enumerate(dict.fromkeys(captions))}
        return cls(
            view.name, chosen, list(number), torch.tensor([number[caption] for caption in captions])
        )

    def cosines(self, subject: Subject) -> Tensor:
        """Return how near each image and each caption are to a model [N, M]."""
        return subject.embeddings(self.place)[self.images] @ subject.sentences(self.captions).T


def _retention(case: Case, view: View, chosen: list[int]) -> Findings:
    pairs = _Pairs.of(view, chosen)
    original, unlearned, *reference = [
        pairs.cosines(subject) for subject in case.subjects(view.name)
    ]
    for k in RANKS:
        old, new, *aim = [
            ranked(cosines, pairs.own, k) for cosines in (original, unlearned, *reference)
        ]
        captions, images = (float(hits.mean()) for hits in new)
        detail = f"unlearned: captions {captions:.3f}, images {images:.3f}"
        yield found(
            f"retrieval_recall_{k}",
            view.name,
            _both(new),
            _both(old),
            _both(aim[0]) if aim else None,
            detail,
        )


def _both(hits: tuple[Tensor, Tensor]) -> Value:
    return share(torch.stack(hits).mean(dim=0))


def ranked(cosines: Tensor, own: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return for each of N images whether its caption is among the k nearest, and whether an image
    of its caption is among the k nearest to that caption.

    Args:
        cosines: of each image and each of M different captions [N, M].
        own: index of each image's caption [N].
        k: the rank, at least 1.

    Returns:
        two tensors of 0 and 1, float32 [N].
    """
    count, different = cosines.shape
    near_captions = cosines.topk(min(k, different), dim=1).indices
    near_images = cosines.topk(min(k, count), dim=0).indices
    finds_caption = (near_captions == own[:, None]).any(dim=1)
    finds_image = (own[near_images] == torch.arange(different)).any(dim=0)
    return finds_caption.float(), finds_image[own].float()


def _likeness(pairs: _Pairs, subject: Subject) -> Value:
    images, captions = (
        subject.embeddings(pairs.place)[pairs.images],
        subject.sentences(pairs.captions),
    )
    return mean((images * captions[pairs.own]).sum(dim=1))
