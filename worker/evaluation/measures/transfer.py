"""What did it cost elsewhere? Accuracy kept on every other evaluation set: the mean, and the worst.

Ratio = accuracy after / accuracy before on images that must stay (as the three-stage paper
reports it). Sets on which the original recognises nothing have no ratio. The reference is
compared with the original as the unlearned model is."""

from torch import Tensor

from shared.schemas.measure_catalogue import OTHERS, Need
from worker.evaluation.findings import Findings, found, missing
from worker.evaluation.intervals import Numbers, kept, paired_drop
from worker.evaluation.subject import Subject
from worker.evaluation.views import Case

NAMES = ("transfer_ratio", "worst_transfer_ratio", "worst_transfer_drop")


def measure(case: Case) -> Findings:
    """Yield the mean and the smallest ratio, and the largest drop."""
    pairs = _pairs(case, case.unlearned)
    if not pairs:
        yield from missing(Need.TRANSFER, *NAMES)
        return
    aims = _pairs(case, case.reference) if case.reference else {}
    drops = {name: paired_drop(*pair) for name, pair in pairs.items()}
    worst = max(drops, key=lambda name: drops[name].value)
    ratios = {name: float(new.sum() / old.sum()) for name, (old, new) in pairs.items()}
    for name, combine in (("transfer_ratio", _mean), ("worst_transfer_ratio", _least)):
        value, detail = kept(list(pairs.values()), combine), None
        if combine is _least:
            detail = min(ratios, key=lambda place: ratios[place])
        reference = kept(list(aims.values()), combine) if aims else None
        yield found(name, OTHERS, value, reference=reference, detail=detail)
    aim = max(
        (paired_drop(*pair) for pair in aims.values()), key=lambda drop: drop.value, default=None
    )
    yield found("worst_transfer_drop", OTHERS, drops[worst], reference=aim, detail=worst)


def _pairs(case: Case, subject: Subject) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the hits of the original and of another model on what stays in each other set, by
    its name.
    """
    pairs = {}
    for view in case.views:
        if view.role == "transfer" and not bool(view.forget.all()):
            before = view.hits(case.original)[~view.forget]
            if bool(before.any()):
                pairs[view.name] = (before, view.hits(subject)[~view.forget])
    return pairs


def _mean(ratios: Numbers) -> Numbers:
    mean: Numbers = ratios.mean(axis=0)
    return mean


def _least(ratios: Numbers) -> Numbers:
    least: Numbers = ratios.min(axis=0)
    return least
