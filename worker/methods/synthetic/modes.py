"""The three modes of the synthetic-sample method, and what their stages do.

- `calibrated`: closed form, then refinement on samples where the closed form leaves held-out
  samples recognised.
- `faithful`: the published procedure, batched.
- `samples_only`: no closed form; samples and names train the last linear map of each tower.
"""

import torch

from shared.errors import JobFailure
from shared.schemas.methods import SyntheticParameters
from worker.methods.engine.closed_form import erase_names
from worker.methods.engine.vocabulary import texts_of
from worker.methods.frame import Erasure
from worker.methods.synthetic import levels, refinement
from worker.methods.synthetic.bank import Bank, make_bank
from worker.methods.synthetic.contact_sheet import contact_sheet
from worker.methods.synthetic.refinement import (
    classifier_of,
    features,
    share_right,
    synthetic_accuracy,
)

DEFAULT_LIMIT = 0.05


def parameters_of(erasure: Erasure) -> SyntheticParameters:
    """Return the parameters as what they are."""
    if not isinstance(erasure.parameters, SyntheticParameters):
        raise TypeError("the synthetic method was given another method's parameters")
    return erasure.parameters


def limit_of(erasure: Erasure) -> float:
    """Return the accuracy on synthetic samples at which to stop: what the request asks for, 0.05
    where it says nothing.
    """
    asked = (erasure.thresholds.max_synthetic_accuracy, erasure.thresholds.max_forget_accuracy)
    return min((limit for limit in asked if limit is not None), default=DEFAULT_LIMIT)


def synthesize(erasure: Erasure) -> None:
    """Make the samples, or take them from the bank, and set the held-out ones aside for the
    audit.
    """
    bank = make_bank(erasure, parameters_of(erasure))
    erasure.state |= {"forget_samples": bank.forget, "forget_labels": bank.forget_labels}
    erasure.state |= {"retain_samples": bank.retain, "retain_labels": bank.retain_labels}
    erasure.state |= {"held_out_samples": bank.held_out, "held_out_labels": bank.held_out_labels}
    erasure.notes["samples"] = {
        "forget": len(bank.forget),
        "retain": len(bank.retain),
        "held_out": len(bank.held_out),
        "from_bank": bank.reused,
        "contact_sheet": contact_sheet(erasure.original, torch.cat([bank.held_out, bank.forget])),
    }


def forget(erasure: Erasure) -> None:
    """Edit the model in the requested mode.

    Raises:
        JobFailure: `method_failed`: nothing that was tried lowered the accuracy on synthetic
            samples.
    """
    parameters, bank = parameters_of(erasure), _bank_of(erasure)
    limit = limit_of(erasure)
    before = synthetic_accuracy(erasure, bank.held_out, bank.held_out_labels)
    erasure.notes |= {"mode": parameters.mode, "limit": limit, "held_out_accuracy_before": before}
    if parameters.mode == "faithful":
        erasure.notes["losses"] = levels.LOSSES
        levels.published_loop(erasure, parameters, bank, limit)
    elif parameters.mode == "samples_only":
        erasure.notes["losses"] = refinement.LOSSES
        refinement.refine(erasure, parameters, bank, texts_of(erasure, erasure.original), limit)
    else:
        erasure.notes["losses"] = ("closed form, no loss",)
        _calibrated(erasure, parameters, bank, limit)
    erasure.notes["held_out_accuracy_after"] = synthetic_accuracy(
        erasure, bank.held_out, bank.held_out_labels
    )


def _calibrated(
    erasure: Erasure, parameters: SyntheticParameters, bank: Bank, limit: float
) -> None:
    erasure.step(0, 1, **_left(erasure, bank))
    edited = erase_names(erasure, bank.retain)
    left = _left(erasure, bank)
    erasure.step(1, 1, **left)
    erasure.notes["closed_form"] = edited | left
    if (
        left["held_out_accuracy"] <= limit
    ):  # refining for a tower alone cost more of what stays than it forgot
        erasure.notes["refinement"] = "not needed: held-out samples are no longer recognised"
        return
    try:
        refinement.refine(erasure, parameters, bank, texts_of(erasure, erasure.clip), limit)
        erasure.notes["refinement"] = "kept"
        erasure.notes["losses"] = refinement.LOSSES
    except JobFailure as failure:  # the closed form stands as it is; the gate decides
        erasure.notes["refinement"] = f"undone: {failure.detail}"


def _left(erasure: Erasure, bank: Bank) -> dict[str, float]:
    """Return the accuracy on held-out samples of the edited towers together, and of each beside
    the other's original.
    """
    towers = (erasure.clip, erasure.original)
    new_images, old_images = (features(erasure, bank.held_out, clip) for clip in towers)
    new_texts, old_texts = (classifier_of(erasure, clip) for clip in towers)
    labels = bank.held_out_labels
    return {
        "held_out_accuracy": share_right(new_images, new_texts, labels),
        "image_tower_alone": share_right(new_images, old_texts, labels),
        "text_tower_alone": share_right(old_images, new_texts, labels),
    }


def _bank_of(erasure: Erasure) -> Bank:
    state = erasure.state
    return Bank(
        forget=state["forget_samples"],
        forget_labels=state["forget_labels"],
        retain=state["retain_samples"],
        retain_labels=state["retain_labels"],
        held_out=state["held_out_samples"],
        held_out_labels=state["held_out_labels"],
        reused=True,
    )
