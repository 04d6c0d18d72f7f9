"""The sample bank: samples of a model and a label set, made once and kept in the storage for the next request."""

import hashlib
import json
from dataclasses import dataclass

import torch
from torch import Tensor

from shared.schemas.methods import SyntheticParameters
from worker.clip import zero_shot_classifier
from worker.methods.frame import Erasure
from worker.methods.synthetic.generation import invert, published_ascent

VERSION = 1
"""Part of the key: a change of the generator must not meet old samples."""
HELD_OUT_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class Bank:
    """Samples as normalised pixels [N, 3, H, W] (float16) with indices [N] into the request's labels."""

    forget: Tensor
    forget_labels: Tensor
    retain: Tensor
    retain_labels: Tensor
    held_out: Tensor
    """Of the classes to be forgotten, never trained on."""
    held_out_labels: Tensor
    reused: bool


def make_bank(erasure: Erasure, parameters: SyntheticParameters) -> Bank:
    """Return the samples of a request, from the storage where they were made before."""
    forget, retain = _wanted(erasure, parameters)
    key = _key(erasure, parameters, forget, retain)
    stored = erasure.store.load(key)
    reused = stored is not None
    if stored is None:
        stored = {"samples": _generate(erasure, parameters, torch.cat([forget, retain]))}
        erasure.store.save(key, stored)
    samples = stored["samples"]
    of_forget, of_retain = samples[: len(forget)], samples[len(forget) :]
    held = torch.zeros(len(forget), dtype=torch.bool)
    for label in forget.unique():
        of_label = (forget == label).nonzero().flatten()
        held[of_label[: max(1, round(HELD_OUT_SHARE * len(of_label)))]] = True
    return Bank(of_forget[~held], forget[~held], of_retain, retain, of_forget[held], forget[held], reused)


def _wanted(erasure: Erasure, parameters: SyntheticParameters) -> tuple[Tensor, Tensor]:
    """Return the label of every sample: those to be forgotten, and those that stay, spread evenly over the labels."""
    gone = erasure.forget_labels
    stays = [i for i in range(len(erasure.labels)) if i not in set(gone)]
    forget = torch.tensor(gone).repeat_interleave(parameters.samples_per_class)
    count = 0 if parameters.mode == "faithful" else parameters.retain_samples  # the published procedure has none
    order = torch.randperm(len(stays), generator=erasure.generator(1))
    retain = torch.tensor(stays)[order].repeat(-(-count // len(stays)))[:count].sort().values
    return forget, retain


def _generate(erasure: Erasure, parameters: SyntheticParameters, labels: Tensor) -> Tensor:
    classifier = zero_shot_classifier(erasure.original, erasure.labels, erasure.request.target.templates)
    if parameters.mode == "faithful":
        samples = published_ascent(erasure, classifier, labels, parameters)
    else:
        samples = invert(erasure, classifier, labels, iterations=parameters.iterations)
    return samples.half()


def _key(erasure: Erasure, parameters: SyntheticParameters, forget: Tensor, retain: Tensor) -> str:
    parts = {
        "version": VERSION,
        "model": erasure.original.digest,
        "labels": erasure.labels,
        "templates": erasure.request.target.templates,
        "forget": forget.tolist(),
        "retain": retain.tolist(),
        "seed": erasure.seed,
        "parameters": parameters.model_dump(mode="json"),
    }
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
