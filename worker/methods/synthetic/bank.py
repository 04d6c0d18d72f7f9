"""The sample bank: samples of a model and a label set, made once for all attempts and candidates of
a job.

They are pictures that the original weights have of what is to be forgotten, so they lie with the
job, encrypted with its key, and go when it ends. The bank is made and kept in batches: an
attempt that is interrupted loses one at the most."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from shared.schemas.methods import SyntheticParameters
from shared.schemas.methods.synthetic import held_out_samples
from worker.clip import zero_shot_classifier
from worker.methods.frame import Erasure, kept
from worker.methods.synthetic.generation import BATCH_SIZE, Inverter, Made, PublishedAscent

VERSION = 2
"""Part of the key: a change of the generator must not meet old samples."""
OWN = 500_000
"""Number of the first batch that is made for one class alone: numbers seed the random start, and
no two may share one, or a sample to train on would be the twin of one that is held out."""


@dataclass(frozen=True, slots=True)
class Bank:
    """Samples as normalised pixels [N, 3, H, W] (float16) with indices [N] into the request's
    labels.
    """

    forget: Tensor
    forget_labels: Tensor
    retain: Tensor
    retain_labels: Tensor
    held_out: Tensor
    """Of the classes to be forgotten, never trained on."""
    held_out_labels: Tensor
    reused: bool
    """Whether an earlier attempt, or another candidate of `auto`, had made all of them."""


def make_bank(erasure: Erasure, parameters: SyntheticParameters) -> Bank:
    """Return the samples of a request, as far as possible from the storage.

    Every label of the set gets as many as `bank_samples` allows, `samples_per_class` at the
    most: these serve a request for any class. Where that is less than the classes to be
    forgotten need, theirs are made besides."""
    classifier = zero_shot_classifier(
        erasure.original, erasure.labels, erasure.request.target.templates
    )
    gone = torch.tensor(erasure.forget_labels)
    if parameters.mode == "faithful":  # the published procedure makes none of what stays
        wanted = gone.repeat_interleave(parameters.samples_per_class)
        samples, reused = _batches(
            erasure, parameters, wanted, PublishedAscent(erasure, classifier, parameters).batch
        )
        return _parted(samples, wanted, gone, reused)
    inverter = Inverter(erasure, classifier, parameters.iterations)
    shared = shared_labels(len(erasure.labels), parameters)
    samples, reused = _batches(erasure, parameters, shared, inverter.batch)
    missing = parameters.samples_per_class - torch.stack(
        [(shared == label).sum() for label in gone]
    )
    own = gone.repeat_interleave(missing)
    if len(own):
        more, more_reused = _batches(erasure, parameters, own, inverter.batch, first=OWN)
        samples, shared, reused = (
            torch.cat([samples, more]),
            torch.cat([shared, own]),
            reused and more_reused,
        )
    return _parted(samples, shared, gone, reused)


def shared_labels(count: int, parameters: SyntheticParameters) -> Tensor:
    """Return the labels [N] of the shared samples of a set of `count` labels: of large sets,
    some labels evenly spaced.
    """
    each = max(1, min(parameters.samples_per_class, parameters.bank_samples // count))
    # In turn: every batch of samples shows many labels, so a lost batch takes no label with it.
    labels = torch.arange(count).repeat(each)
    return labels[:: -(-len(labels) // parameters.bank_samples)]


def _batches(
    erasure: Erasure,
    parameters: SyntheticParameters,
    labels: Tensor,
    make: Callable[[Tensor, int, Made], Tensor],
    first: int = 0,
) -> tuple[Tensor, bool]:
    """Return samples of labels [N], and whether all of them were stored; batches are numbered
    from `first` on.
    """
    parts, all_reused, done = [], True, 0

    def made_batch(batch: Tensor, number: int) -> Tensor:
        return make(batch, number, made).half()

    def made(of_batch: int) -> None:
        erasure.step(done + of_batch, len(labels))

    for number, batch in enumerate(labels.split(BATCH_SIZE), start=first):
        depends_on = _depends_on(erasure, parameters, number, batch)
        samples, reused = kept(
            erasure.store, "samples", depends_on, partial(made_batch, batch, number)
        )
        parts.append(samples)
        all_reused &= reused
        done += len(batch)
        made(0)
    return torch.cat(parts), all_reused


def _depends_on(
    erasure: Erasure, parameters: SyntheticParameters, number: int, batch: Tensor
) -> dict[str, Any]:
    """Return everything that the samples of a batch depend on."""
    faithful = ("mode", "published_iterations", "acceptance", "max_starts")
    relevant = parameters.model_dump(
        include=set(faithful if parameters.mode == "faithful" else ("iterations",))
    )
    return {
        "version": VERSION,
        "model": erasure.original.digest,
        "labels": erasure.labels,
        "templates": erasure.request.target.templates,
        "batch": [number, batch.tolist()],
        "seed": erasure.seed,
        "parameters": relevant,
    }


def _parted(samples: Tensor, labels: Tensor, gone: Tensor, reused: bool) -> Bank:
    """Part samples into those to forget, a share of them held out, and those that stay."""
    held = torch.zeros(len(labels), dtype=torch.bool)
    for label in gone:
        of_label = (labels == label).nonzero().flatten()
        held[of_label[: held_out_samples(len(of_label))]] = True
    forget, stays = torch.isin(labels, gone) & ~held, ~torch.isin(labels, gone)
    return Bank(
        forget=samples[forget],
        forget_labels=labels[forget],
        retain=samples[stays],
        retain_labels=labels[stays],
        held_out=samples[held],
        held_out_labels=labels[held],
        reused=reused,
    )
