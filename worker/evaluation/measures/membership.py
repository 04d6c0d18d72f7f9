"""Can the given images be told from others of their kind? Membership inference on the images in
`data.forget`.

The signal is phi = log(p / (1 - p)), p the probability of the class over the labels (Carlini et al.
2022, section IV). The population attack (Yeom et al. 2018) takes it as it is: AUC two-sided,
because images that score *lower* than others of their kind are as easy to tell, and the share found
at 1 % and 0.1 % false alarms. The comparison images are those of what is forgotten that the method
was not given. They say something of the *training* set only if the original was not trained on
them; that is the requester's to know.

RMIA (Zarifzadeh et al. 2024, offline form) compares with a model that never saw the images,
where there is one: P(x) = ((1 + a) P_out(x) + 1 - a) / 2, score(x) = Pr_z[(P(x|theta) / P(x)) /
(P(z|theta) / P(z)) >= gamma], z images that stay."""

import math
from functools import partial

import torch
from torch import Tensor

from shared.schemas.measure_catalogue import GIVEN, Need
from shared.schemas.measures import NotMeasured, Value
from worker.evaluation.findings import Findings, found, missing, of_each
from worker.evaluation.intervals import share, two_sided_auc
from worker.evaluation.subject import Subject
from worker.evaluation.views import Case, View, odds

A, GAMMA = 0.3, 1.0
FALSE_ALARMS = {"membership_tpr_1": 0.01, "membership_tpr_01": 0.001}


def measure(case: Case) -> Findings:
    """Yield the population attack, and RMIA where there is a reference."""
    view = case.own
    if view is None or case.given is None or not bool(view.forget.any()):
        yield from missing(Need.GIVEN, "membership_auc", *FALSE_ALARMS, "rmia_auc")
        return
    yield of_each(
        case, "membership_auc", GIVEN, lambda subject: two_sided_auc(*_signals(case, view, subject))
    )
    held_out = int(view.forget.sum())
    for name, rate in FALSE_ALARMS.items():
        if held_out * rate >= 1:
            yield of_each(case, name, GIVEN, partial(_tpr, case, view, rate))
        else:
            wanted = math.ceil(1 / rate)
            reason = (
                f"needs {wanted} images of what is forgotten that the method does not see; "
                f"there are {held_out}"
            )
            yield NotMeasured(name=name, reason=reason)
    if case.reference is None:
        yield from missing(Need.REFERENCE, "rmia_auc")
    else:
        yield found(
            "rmia_auc", GIVEN, _rmia(case, view, case.unlearned), _rmia(case, view, case.original)
        )


def _signals(case: Case, view: View, subject: Subject) -> tuple[Tensor, Tensor]:
    """Return phi of the given images and of the held-out ones."""
    weights = subject.classifier(view.labels, view.templates)
    given = odds(subject.scale * subject.embeddings(GIVEN) @ weights.T, case.gone(view))
    return given, odds(view.logits(subject, subject), case.gone(view))[view.forget]


def _tpr(case: Case, view: View, rate: float, subject: Subject) -> Value:
    """Return the share of given images above the score that `rate` of the held-out ones exceed."""
    given, held_out = _signals(case, view, subject)
    allowed = int(len(held_out) * rate)
    threshold = held_out.sort(descending=True).values[allowed]
    return share(given > threshold)


def _rmia(case: Case, view: View, subject: Subject) -> Value:
    if case.reference is None:
        raise ValueError("RMIA needs a reference")
    given, held_out = (
        rmia_scores(inside, outside, *_population(case, view, subject))
        for inside, outside in zip(
            _signals(case, view, subject), _signals(case, view, case.reference), strict=True
        )
    )
    return two_sided_auc(given, held_out)


def _population(case: Case, view: View, subject: Subject) -> tuple[Tensor, Tensor]:
    """Return phi of images that stay under a model and under the reference: their label's
    probability each.
    """
    reference = case.reference or subject
    phis = []
    for model in (subject, reference):
        logs = (
            view.logits(model, model).log_softmax(dim=1).gather(1, view.truth[:, None]).squeeze(1)
        )
        phis.append(torch.logit(logs.exp().double(), eps=1e-12)[view.having("retain")].float())
    return phis[0], phis[1]


def rmia_scores(
    phi: Tensor, phi_out: Tensor, z: Tensor, z_out: Tensor, a: float = A, gamma: float = GAMMA
) -> Tensor:
    """Return RMIA's score [N] in [0, 1].

    Args:
        phi: log odds of the images under the model, [N].
        phi_out: the same under a model that never saw them.
        z: log odds of population images under the model, [M].
        z_out: the same under the other model.
        a: how much the reference stands for models that saw the images; 0.3 for images as these
            (the paper's section 3.3).
        gamma: by how much the ratio must exceed that of a population image.
    """
    ratios, population = (
        inside.double().sigmoid() / (((1 + a) * outside.double().sigmoid() + (1 - a)) / 2)
        for inside, outside in ((phi, phi_out), (z, z_out))
    )
    return (ratios[:, None] >= gamma * population[None, :]).double().mean(dim=1)
