"""How close is it to a model that never saw the data? The target is that model, not zero and not
chance.

That model is the one which the request names in `audit.reference`. Nobody here can tell whether
it never saw the data."""

import torch
from torch import Tensor

from shared.schemas.measure_catalogue import Need
from shared.schemas.measures import Value
from worker.evaluation.findings import Findings, found, missing
from worker.evaluation.subject import Subject
from worker.evaluation.views import Case, View

PERMUTATIONS = 999
NAMES = ("tow", "activation_distance", "relative_test_p")


def tow(unlearned: tuple[float, float, float], reference: tuple[float, float, float]) -> float:
    """Return the tug of war (1 - |dF|) (1 - |dR|) (1 - |dT|) in [0, 1], 1 for accuracies as the
    reference's (Zhao et al. 2024).

    Accuracies are on what is forgotten, on what stays, and on other images.
    """
    product = 1.0
    for own, aim in zip(unlearned, reference, strict=True):
        product *= 1 - abs(own - aim)
    return product


def activation_distance(unlearned: Tensor, reference: Tensor) -> Tensor:
    """Return the Euclidean distance [N] of label probabilities [N, C] to the reference's, in [0,
    sqrt 2] (Golatkar et al. 2021)."""
    distances: Tensor = (unlearned - reference).norm(dim=1)
    return distances


def leakage(unlearned: float, reference: float, original: float) -> float | None:
    """Return (u - g) / (o - g): 0 as the reference, 1 as the original (LPL, arXiv 2604.08271);
    None where o = g.
    """
    return None if original == reference else (unlearned - reference) / (original - reference)


def relative_test(
    unlearned: Tensor,
    reference: Tensor,
    original: Tensor,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> tuple[float, float]:
    """Test whether the unlearned model's outputs are nearer to the reference's than to the
    original's.

    T = MMD^2(U, G) - MMD^2(U, O) with a Gaussian kernel, its width the median distance. All three
    are outputs on the *same* n images, so where U is equally far from both, g_i and o_i may change
    places; the p-value is the share of such permutations with a T as small. (A two-sample test
    rejects even honest retraining; Bounliphone et al. 2016 for the relative test.)

    Args:
        unlearned: outputs [n, C] in a space that all models share, such as label probabilities;
            embeddings of models that were trained apart are not comparable.
        reference: the same of the reference.
        original: the same of the original.
        permutations: how many.
        seed: of the permutations.

    Returns:
        (T, p), p in (0, 1]: small where the model is nearer to the reference.
    """
    n = len(unlearned)
    outputs = torch.cat([unlearned, reference, original]).double()
    distances = torch.cdist(outputs, outputs)
    width = distances[distances > 0].median() if bool((distances > 0).any()) else torch.tensor(1.0)
    kernel = (-((distances / width) ** 2) / 2).exp().fill_diagonal_(0)
    generator = torch.Generator().manual_seed(seed)
    rows = torch.arange(n)

    def statistic(swapped: Tensor) -> float:
        u, g, o = (
            rows,
            torch.where(swapped, rows + 2 * n, rows + n),
            torch.where(swapped, rows + n, rows + 2 * n),
        )
        within = kernel[g][:, g].sum() - kernel[o][:, o].sum()
        return float(
            within / (n * (n - 1)) - 2 * (kernel[u][:, g].sum() - kernel[u][:, o].sum()) / n**2
        )

    measured = statistic(torch.zeros(n, dtype=torch.bool))
    drawn = [statistic(torch.rand(n, generator=generator) < 0.5) for _ in range(permutations)]
    return measured, (1 + sum(value <= measured for value in drawn)) / (1 + permutations)


def measure(case: Case) -> Findings:
    """Yield closeness to the reference on the target's own set, where there is one."""
    view, reference = case.own, case.reference
    if reference is None:
        yield from missing(Need.REFERENCE, *NAMES)
        return
    if view is None or not bool(view.forget.any()) or bool(view.forget.all()):
        yield from missing(Need.REAL if view is None else Need.REST, *NAMES)
        return
    unlearned, aim, original = (
        _probabilities(view, model) for model in (case.unlearned, reference, case.original)
    )
    detail = (
        "forget, retain and transfer"
        if _transfer(case)
        else "forget and retain; there is no other set"
    )
    aims = _accuracies(case, view, reference)
    yield found(
        "tow",
        view.name,
        Value(value=tow(_accuracies(case, view, case.unlearned), aims)),
        Value(value=tow(_accuracies(case, view, case.original), aims)),
        detail=detail,
    )
    yield found(
        "activation_distance", view.name, _distance(unlearned, aim), _distance(original, aim)
    )
    if len(aim) > 1:
        statistic, p = relative_test(unlearned, aim, original, seed=case.request.seed)
        yield found(
            "relative_test_p", view.name, Value(value=p, n=len(aim)), detail=f"T = {statistic:.4f}"
        )


def _distance(outputs: Tensor, aim: Tensor) -> Value:
    return Value(value=float(activation_distance(outputs, aim).mean()), n=len(aim))


def _probabilities(view: View, subject: Subject) -> Tensor:
    return view.logits(subject, subject)[view.forget].softmax(dim=1)


def _transfer(case: Case) -> list[View]:
    return [view for view in case.views if view.role == "transfer" and not bool(view.forget.all())]


def _accuracies(case: Case, view: View, subject: Subject) -> tuple[float, float, float]:
    hits = view.hits(subject).float()
    others = torch.cat(
        [v.hits(subject)[~v.forget].float() for v in _transfer(case)] or [torch.zeros(1)]
    )
    return float(hits[view.forget].mean()), float(hits[~view.forget].mean()), float(others.mean())
