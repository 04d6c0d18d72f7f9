"""The arithmetic of the measures, against numbers worked by hand or by another library."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu

from worker.evaluation.intervals import auc, kept, paired_drop, share, two_sided_auc
from worker.evaluation.measures.closeness import activation_distance, leakage, relative_test, tow
from worker.evaluation.measures.membership import rmia_scores
from worker.evaluation.views import odds


def bools(text: str) -> torch.Tensor:
    return torch.tensor([letter == "1" for letter in text])


def test_paired_drop_by_hand() -> None:
    # n = 10, 3 lost, 1 won: centre 2/12, variance (5 - 4/12) / 144
    drop = paired_drop(bools("1111110000"), bools("1110001000"))
    half = 1.959963984540054 * math.sqrt((5 - 4 / 12) / 144)
    assert (drop.value, drop.n) == (0.2, 10)
    assert drop.low == pytest.approx(2 / 12 - half)
    assert drop.high == pytest.approx(2 / 12 + half)


def test_paired_drop_of_nothing_is_not_certain() -> None:
    drop = paired_drop(bools("1" * 20), bools("1" * 20))
    assert drop.value == 0
    assert drop.low is not None
    assert drop.high is not None
    assert drop.low < 0 < drop.high < 0.1


def test_auc_counts_ties_half_and_agrees_with_mann_and_whitney() -> None:
    positive, negative = torch.tensor([3.0, 1.0, 2.0]), torch.tensor([1.0, 0.0])
    assert auc(positive, negative) == pytest.approx(5.5 / 6)
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randint(9, (n,), generator=generator).float() for n in (50, 70))
    assert auc(a, b) == pytest.approx(mannwhitneyu(a.numpy(), b.numpy()).statistic / (50 * 70))


def test_auc_is_two_sided() -> None:
    low, high = torch.arange(10.0), torch.arange(10.0) + 5
    assert two_sided_auc(low, high) == two_sided_auc(high, low)
    same = two_sided_auc(torch.ones(5), torch.ones(5))
    assert (same.value, same.low) == (0.5, 0.5)


def test_kept_takes_the_mean_and_the_least_of_ratios() -> None:
    sets = [(bools("1111"), bools("1110")), (bools("1100"), bools("1100"))]
    mean = kept(sets, lambda ratios: np.asarray(ratios.mean(axis=0)))
    least = kept(sets, lambda ratios: np.asarray(ratios.min(axis=0)))
    assert (mean.value, least.value, mean.n) == (0.875, 0.75, 8)
    assert least.low is not None
    assert least.low < 0.75 < (least.high or 0)
    assert kept(sets, lambda ratios: np.asarray(ratios.mean(axis=0))) == mean  # the draws are fixed


def test_a_share_of_rates_is_as_wide_as_one_of_hits() -> None:
    assert share(torch.full((10,), 0.5)) == share(bools("1111100000"))


def test_odds_of_several_labels_by_hand() -> None:
    logits = torch.log(torch.tensor([[0.1, 0.2, 0.3, 0.4]]))
    assert float(odds(logits, [0, 2])) == pytest.approx(math.log(0.4 / 0.6))


def test_tug_of_war_by_hand() -> None:
    assert tow((0.0, 0.9, 0.8), (0.1, 0.9, 0.6)) == pytest.approx(0.9 * 1.0 * 0.8)
    assert tow((0.3, 0.9, 0.8), (0.3, 0.9, 0.8)) == 1


def test_activation_distance_by_hand() -> None:
    distances = activation_distance(torch.tensor([[1.0, 0.0], [0.5, 0.5]]), torch.tensor([[0.0, 1.0], [0.5, 0.5]]))
    assert distances.tolist() == pytest.approx([math.sqrt(2), 0])


def test_leakage_has_the_reference_at_nought_and_the_original_at_one() -> None:
    assert leakage(0.56, 0.56, 0.72) == 0
    assert leakage(0.72, 0.56, 0.72) == pytest.approx(1)
    assert leakage(0.5, 0.7, 0.7) is None


def outputs(towards: float, seed: int, n: int = 40) -> torch.Tensor:
    """Return label probabilities [n, 3] that favour the first label by `towards`."""
    noise = torch.randn((n, 3), generator=torch.Generator().manual_seed(seed))
    return (noise + torch.tensor([towards, 0.0, 0.0])).softmax(dim=1)


def test_relative_test_tells_which_model_is_nearer() -> None:
    original, reference = outputs(4.0, 0), outputs(0.0, 1)
    statistic, p = relative_test(outputs(0.0, 2), reference, original, permutations=199)
    assert statistic < 0
    assert p <= 0.01
    statistic, p = relative_test(outputs(4.0, 3), reference, original, permutations=199)
    assert statistic > 0
    assert p > 0.9


def test_relative_test_of_two_alike_is_undecided() -> None:
    p = [relative_test(outputs(0.0, s), outputs(0.0, s + 1), outputs(0.0, s + 2), 99)[1] for s in range(10, 40, 3)]
    assert 0.2 < sum(p) / len(p) < 0.8


def test_rmia_by_hand() -> None:
    # p, p_out = 0.9, 0.5; a = 0.3: ratio 0.9 / (0.5 * (1.3 * 0.5 + 0.7)) = 0.9 / 0.675
    phi, phi_out = torch.logit(torch.tensor([0.9])), torch.logit(torch.tensor([0.5]))
    population = torch.logit(torch.tensor([0.85, 0.95]))
    ratio = torch.tensor([0.9, 0.85, 0.95]) / 0.675
    expected = float((ratio[0] >= ratio[1:]).float().mean())
    assert float(rmia_scores(phi, phi_out, population, torch.zeros(2))) == expected == 0.5


def test_rmia_finds_what_only_the_model_knows_well() -> None:
    generator = torch.Generator().manual_seed(0)
    hard = torch.randn(200, generator=generator)
    members = rmia_scores(hard[:100] + 2, hard[:100], hard[100:], hard[100:])
    others = rmia_scores(hard[100:], hard[100:], hard[100:], hard[100:])
    assert auc(members, others) > 0.8
