"""Do captions and images still find each other? Where a place has captions.

Of the N pairs of a place that must stay, each image looks for its caption among all captions of these pairs, and each caption
for its image, by cosine (Radford et al. 2021). A caption that several images have is right for each of them. Of pairs that
show what is forgotten, the mean cosine is taken: the association itself (SALMUBench, arXiv 2603.26316).
"""

from functools import partial

import torch
from torch import Tensor

from shared.measures import Need
from shared.schemas.measures import Value
from worker.audit.findings import Findings, missing, of_each
from worker.audit.intervals import mean, share
from worker.audit.subject import Subject
from worker.audit.views import Case, View

RANKS = (1, 5, 10)
FEWEST, MOST = 20, 2000
"""Pairs: with fewer nearly everything is among the first ten, and more take long."""
NAMES = tuple(f"retrieval_recall_{k}" for k in RANKS)


def measure(case: Case) -> Findings:
    """Yield recall at every rank for each place with captions that stay, and the likeness of pairs that should be forgotten."""
    stays = [(view, chosen) for view in case.views if len(chosen := _captioned(view, ~view.forget)) >= FEWEST]
    goes = [(view, chosen) for view in case.views if len(chosen := _captioned(view, view.forget))]
    for view, chosen in stays:
        yield from _retention(case, view, chosen[:: -(-len(chosen) // MOST)])
    for view, chosen in goes:
        yield of_each(case, "forgotten_pair_similarity", view.name, partial(_likeness, view, chosen))
    if not stays:
        yield from missing(Need.CAPTIONS, *NAMES)
    if not goes:
        yield from missing(Need.CAPTIONS, "forgotten_pair_similarity")


def _captioned(view: View, mask: Tensor) -> list[int]:
    return [index for index, caption in enumerate(view.captions) if caption is not None and bool(mask[index])]


def _retention(case: Case, view: View, chosen: list[int]) -> Findings:
    for k in RANKS:

        def both(subject: Subject, k: int = k) -> Value:
            return share(torch.stack(ranked(*_pairs(view, chosen, subject), k)).mean(dim=0))

        captions, images = (float(hits.mean()) for hits in ranked(*_pairs(view, chosen, case.unlearned), k))
        detail = f"unlearned: captions {captions:.3f}, images {images:.3f}"
        yield of_each(case, f"retrieval_recall_{k}", view.name, both, detail=detail)


def _pairs(view: View, chosen: list[int], subject: Subject) -> tuple[Tensor, Tensor, Tensor]:
    """Return embeddings of the images [N, d] and of the different captions [M, d], and which caption each image has [N]."""
    captions = [view.captions[index] or "" for index in chosen]
    different = list(dict.fromkeys(captions))
    own = torch.tensor([different.index(caption) for caption in captions])
    return subject.embeddings(view.name)[chosen], subject.sentences(different), own


def ranked(images: Tensor, captions: Tensor, own: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return for each of N images whether its caption is among the k nearest, and whether an image of its caption is among
    the k nearest to that caption.

    Args:
        images: unit embeddings [N, d].
        captions: unit embeddings of different captions [M, d].
        own: index of each image's caption [N].
        k: the rank, at least 1.

    Returns:
        two tensors of 0 and 1, float32 [N].
    """
    cosines = images @ captions.T
    near_captions = cosines.topk(min(k, len(captions)), dim=1).indices
    near_images = cosines.topk(min(k, len(images)), dim=0).indices
    finds_caption = (near_captions == own[:, None]).any(dim=1)
    finds_image = (own[near_images] == torch.arange(len(captions))).any(dim=0)
    return finds_caption.float(), finds_image[own].float()


def _likeness(view: View, chosen: list[int], subject: Subject) -> Value:
    images, captions, own = _pairs(view, chosen, subject)
    return mean((images * captions[own]).sum(dim=1))
