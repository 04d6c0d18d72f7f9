"""The three-stage method's parts, against numbers worked by hand and against slower ways to the same end."""

import math
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from torch import nn

from worker.clip import Clip
from worker.methods.engine.adapters import Directed, Full, LowRank, adapt, features, merge
from worker.methods.engine.prepared_data import Material, balanced_indices
from worker.methods.engine.prompt_bank import PromptBank
from worker.methods.engine.recall import recall_of
from worker.methods.engine.tower import Tower, batch_norms, residual_blocks
from worker.methods.engine.views import cutmix, degraded, views
from worker.methods.three_stage.directions import Probe, input_fisher, leading
from worker.methods.three_stage.ema import Average
from worker.methods.three_stage.fisher import fisher_information, relative_fisher
from worker.methods.three_stage.losses import (
    contrastive_loss,
    distillation_loss,
    forget_loss,
    guard_loss,
    statistics_loss,
)
from worker.methods.three_stage.restoring import Mixture, choose, soup


def test_forget_loss_by_hand() -> None:
    # Cosines with (1, 0): 0.6 and -1; the mean is -0.2.
    features = torch.tensor([[0.6, 0.8], [-1.0, 0.0]])
    assert forget_loss(features, torch.tensor([[1.0, 0.0]])).item() == pytest.approx(-0.2)


def test_contrastive_loss_by_hand() -> None:
    # s = 2, logits (2, 0) for class 0: -ln(e^2 / (e^2 + 1)) = ln(1 + e^-2)
    loss = contrastive_loss(torch.tensor([[1.0, 0.0]]), torch.eye(2), torch.tensor([0]), torch.tensor(2.0))
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-2)))


def test_a_class_drawn_more_often_is_not_preferred_for_it() -> None:
    # Logits (0, 0), drawn 3 : 1: -ln(3 / 4) for class 0, so that only what is beyond 3 : 1 is still to be learned.
    prior = torch.tensor([0.75, 0.25]).log()
    loss = contrastive_loss(torch.zeros(1, 2), torch.eye(2), torch.tensor([0]), torch.tensor(2.0), prior)
    assert loss.item() == pytest.approx(math.log(4 / 3))


def test_guard_loss_by_hand() -> None:
    # s = 10, margin 2, two templates, two names and two rivals.
    # Template 1: the better name has cosine 0.6, the better rival 0.8: 6 - 8 + 2 = 0.
    # Template 2: name 0.8, rivals 0 and 0.6: 8 - 6 + 2 = 4. Mean of 0 and 4 = 2.
    image = torch.tensor([[0.6, 0.8]])
    targets = torch.tensor([[[1.0, 0.0], [-1.0, 0.0]], [[0.0, 1.0], [1.0, 0.0]]])
    rivals = torch.tensor([[[0.0, 1.0], [-1.0, 0.0]], [[0.8, -0.6], [1.0, 0.0]]])
    assert guard_loss(image, targets, rivals, torch.tensor(10.0), 2.0).item() == pytest.approx(2.0)


def test_guard_loss_lets_go_beyond_its_margin() -> None:
    image = torch.tensor([[1.0, 0.0]], requires_grad=True)
    targets, rivals = torch.tensor([[[0.0, 1.0]]]), torch.tensor([[[1.0, 0.0]]])
    guard_loss(image, targets, rivals, torch.tensor(10.0), 2.0).backward()
    assert torch.equal(image.grad, torch.zeros(1, 2))


def test_distillation_loss_by_hand() -> None:
    # Cosines 1 and 0.6: (0 + 0.4) / 2
    now, original = torch.tensor([[1.0, 0.0], [0.6, 0.8]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert distillation_loss(now, original).item() == pytest.approx(0.2)


def test_statistics_loss_by_hand() -> None:
    # Layer 1: means differ by (3, 4), deviations not: 5 + 0. Layer 2: means agree, deviations differ by (0, 2): 0 + 2.
    zero = torch.zeros(2)
    measured = [(torch.tensor([3.0, 4.0]), zero), (zero, torch.tensor([1.0, 3.0]))]
    stored = [(zero, zero), (zero, torch.tensor([1.0, 1.0]))]
    assert statistics_loss(measured, stored).item() == pytest.approx(7.0)


def test_average_follows_its_formula() -> None:
    # Decay 0.5 with warm-up min(0.5, (s + 1) / (s + 10)): 0.1, then 2/11.
    # 0 -> 0.1 * 0 + 0.9 * 10 = 9 -> 2/11 * 9 + 9/11 * 20 = 18
    average = Average({"w": torch.tensor([0.0])}, decay=0.5)
    average.update({"w": torch.tensor([10.0])})
    assert average.weights["w"].item() == pytest.approx(9.0)
    average.update({"w": torch.tensor([20.0])})
    assert average.weights["w"].item() == pytest.approx(18.0)


def test_average_without_decay_is_the_latest() -> None:
    average = Average({"w": torch.tensor([1.0])}, decay=0.0)
    average.update({"w": torch.tensor([5.0])})
    assert average.weights["w"].item() == 5.0


def test_soup_ends_at_its_two_models() -> None:
    edited, original = {"w": torch.tensor([3.0, 1.0])}, {"w": torch.tensor([1.0, 2.0])}
    assert torch.equal(soup(edited, original, 1.0)["w"], edited["w"])
    assert torch.equal(soup(edited, original, 0.0)["w"], original["w"])
    assert torch.allclose(soup(edited, original, 0.25)["w"], torch.tensor([1.5, 1.75]))


def test_choose_keeps_the_most_among_those_that_forget_enough() -> None:
    mixtures = [Mixture(1.0, 0.0, 0.90), Mixture(0.9, 0.02, 0.96), Mixture(0.8, 0.02, 0.94), Mixture(0.5, 0.3, 1.0)]
    assert choose(mixtures, limit=0.02).alpha == 0.9


def test_choose_takes_of_equals_the_one_nearest_to_the_original() -> None:
    mixtures = [Mixture(1.0, 0.0, 0.97), Mixture(0.9, 0.0, 0.97), Mixture(0.8, 0.0, 0.968), Mixture(0.5, 0.5, 1.0)]
    assert choose(mixtures, limit=0.02).alpha == 0.8


def test_choose_takes_the_least_recognised_where_none_forgets_enough() -> None:
    mixtures = [Mixture(1.0, 0.2, 0.5), Mixture(0.9, 0.3, 1.0)]
    assert choose(mixtures, limit=0.02).alpha == 1.0


def test_recall_counts_what_is_recognised_or_nearly_so() -> None:
    # s = 10. Of the original's two images one led by 10, one was behind by 6: 8 on average, so within 2 is nearly.
    # Template 1, images (1, 0), (0.5, 0.8), (0, 1): leads of 10, -3 and -10 logits.
    # Template 2 turns name and rival round: -10, 3 and 10. Together 3 of 6.
    axes = torch.eye(2)
    bank = PromptBank(torch.stack([axes[:1], axes[1:]]), torch.stack([axes[1:], axes[:1]]))
    original = SimpleNamespace(original=torch.tensor([[1.0, 0.0], [0.0, 0.6]]))
    stub = SimpleNamespace(bank=bank, scale=torch.tensor(10.0), calibration_forget=original)
    seen = torch.tensor([[1.0, 0.0], [0.5, 0.8], [0.0, 1.0]])
    assert recall_of(cast(Material, stub), seen) == pytest.approx(1 / 2)


def test_balanced_indices_draw_every_class_alike() -> None:
    labels = torch.tensor([0] * 95 + [4] * 5)
    drawn = labels[balanced_indices(labels, 400, torch.Generator().manual_seed(0))]
    assert 0.4 < (drawn == 4).float().mean() < 0.6  # 4.0 standard deviations


def test_views_begin_with_the_images_themselves() -> None:
    pixels = torch.rand(2, 3, 10, 10)
    seen = views(pixels, 3, torch.Generator().manual_seed(0))
    assert seen.shape == (6, 3, 10, 10)
    assert torch.equal(seen[:2], pixels)
    assert not torch.equal(seen[2:4], pixels)
    assert seen.min() >= 0
    assert seen.max() <= 1


def test_cutmix_takes_a_quarter_of_the_other_image() -> None:
    mixed = cutmix(torch.zeros(5, 3, 8, 8), torch.ones(5, 3, 8, 8), torch.Generator().manual_seed(0))
    assert torch.equal(mixed.mean(dim=(1, 2, 3)), torch.full((5,), 0.25))


def test_degraded_images_are_new_and_keep_their_shape() -> None:
    pixels = torch.randn(30, 3, 20, 20, generator=torch.Generator().manual_seed(4))
    seen = degraded(pixels, torch.Generator().manual_seed(0))
    assert seen.shape == pixels.shape
    assert seen.diff(dim=-1).abs().mean() < 0.5 * pixels.diff(dim=-1).abs().mean()  # coarse
    grey = (seen - seen.mean(dim=1, keepdim=True)).abs().amax(dim=(1, 2, 3)) < 1e-5
    assert 0 < grey.sum() < 30


def tower_of(clip: Clip) -> Tower:
    return Tower(clip.model.visual.requires_grad_(False))


def pixels_for(clip: Clip, count: int = 3) -> torch.Tensor:
    return torch.randn(count, 3, clip.image_size, clip.image_size, generator=torch.Generator().manual_seed(1))


def test_segments_in_a_row_are_the_tower(tiny: Clip) -> None:
    tower, pixels = tower_of(tiny), pixels_for(tiny)
    expected = nn.functional.normalize(tiny.model.encode_image(pixels), dim=-1)
    for cut in range(len(tower.segments)):
        assert torch.allclose(tower(tower(pixels, 0, cut), cut), expected, atol=1e-6)


def test_every_weight_of_the_tower_has_a_segment(tiny: Clip) -> None:
    tower = tower_of(tiny)
    first = [tower.segment_of(name) for name, _ in tower.visual.named_parameters()]
    assert set(first) == set(range(len(tower.segments)))
    assert set(tower.weights(2)) < set(tower.weights())
    assert all(tower.segment_of(name) >= 2 for name in tower.weights(2))
    assert not any("embedding" in name for name in tower.weights())


def test_an_unknown_image_tower_is_one_segment() -> None:
    visual = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    tower = Tower(visual)
    assert tower.weights() == ["1.weight"]
    assert torch.allclose(tower(torch.ones(1, 3, 2, 2)).norm(), torch.tensor(1.0))


def test_statistics_are_read_where_there_are_some(tiny: Clip) -> None:
    norms, blocks = batch_norms(tiny.model.visual), residual_blocks(tiny.model.visual)
    assert bool(norms) != bool(blocks)


@pytest.mark.parametrize("rank", [2, None])
def test_merged_weights_do_what_the_adapter_did(tiny: Clip, rank: int | None) -> None:
    """Linear layers, convolutions, the in-projection of attention and `proj`, all at once."""
    tower, pixels = tower_of(tiny), pixels_for(tiny)
    names = tower.weights(1)
    adapter = adapt(tower, names, rank=rank, generator=torch.Generator().manual_seed(0))
    before = features(tower, adapter.weights(), pixels, 0)
    assert torch.allclose(before, tower(pixels), atol=1e-6)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
    adapted = features(tower, adapter.weights(), pixels, 0)
    assert not torch.allclose(adapted, before, atol=1e-3)
    merge(tower, adapter.weights())
    assert torch.allclose(
        tower(pixels), adapted, atol=1e-5
    )  # not bit by bit: attention has a path of its own for plain weights
    kinds = {tower.visual.get_parameter(name).ndim for name in names}
    assert kinds == ({2, 4} if batch_norms(tower.visual) else {2})


def test_low_rank_is_of_that_rank() -> None:
    adapter = LowRank({"w": torch.zeros(6, 4, 3, 3)}, 2, torch.Generator().manual_seed(0))
    with torch.no_grad():
        adapter.up[0].normal_(generator=torch.Generator().manual_seed(1))
    assert torch.linalg.matrix_rank(adapter.weights()["w"].flatten(1)) == 2
    assert sum(p.numel() for p in adapter.parameters()) == 2 * 6 + 2 * 36


def test_directed_reads_its_directions_and_nothing_else() -> None:
    directions = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]])
    adapter = Directed({"w": torch.zeros(3, 4)}, {"w": directions})
    assert [tuple(parameter.shape) for parameter in adapter.parameters()] == [(3, 2)]
    with torch.no_grad():
        adapter.up[0].fill_(1.0)
    assert (adapter.weights()["w"] @ torch.tensor([0.0, 5.0, 0.0, 7.0])).abs().max() == 0
    assert (adapter.weights()["w"] @ torch.tensor([2.0, 0.0, 3.0, 0.0])).tolist() == [5.0, 5.0, 5.0]


def test_leading_directions_are_those_that_are_wanted_and_not_spared() -> None:
    # Ratios 9 / (1 + e), 100 / (100 + e) and 4 / (0 + e) with e = 0.03 * 101 / 3 = 1.01: 4.5, 1.0, 4.0.
    wanted, spared = torch.diag(torch.tensor([9.0, 100.0, 4.0])), torch.diag(torch.tensor([1.0, 100.0, 0.0]))
    rows = leading(wanted, spared, 2, torch.Generator().manual_seed(0))
    assert torch.allclose(rows @ rows.T, torch.eye(2), atol=1e-5)
    assert rows[:, 1].abs().max() < 0.05
    assert torch.allclose(rows[:, [0, 2]].norm(dim=0), torch.ones(2), atol=0.01)


def test_leading_directions_of_a_dead_layer_are_some() -> None:
    rows = leading(torch.zeros(4, 4), torch.zeros(4, 4), 2, torch.Generator().manual_seed(0))
    assert torch.isfinite(rows).all()


def test_input_fisher_is_the_mean_of_each_samples_gradient_with_itself(tiny: Clip) -> None:
    tower, pixels = tower_of(tiny), pixels_for(tiny, 5)
    start = len(tower.segments) - 2
    inputs, names = tower(pixels, 0, start), tower.weights(start)
    readings = torch.randn(5, 32, generator=torch.Generator().manual_seed(3))
    found = input_fisher(tower, names, Probe(inputs, readings), start)
    for name in names:
        weight = tower.visual.get_parameter(name).clone().requires_grad_()
        expected = torch.zeros_like(found[name])
        for x, u in zip(inputs, readings, strict=True):
            (gradient,) = torch.autograd.grad(features(tower, {name: weight}, x[None], start)[0] @ u, weight)
            expected += gradient.flatten(1).T @ gradient.flatten(1) / 5
        assert torch.allclose(found[name], expected, rtol=1e-3, atol=1e-7)


def test_full_trains_every_entry() -> None:
    adapter = Full({"w": torch.zeros(6, 4)})
    adapter.weights()["w"].sum().backward()
    assert all(parameter.grad is not None and bool(parameter.grad.all()) for parameter in adapter.parameters())


def test_fisher_information_is_the_mean_of_squared_gradients_of_each_sample(tiny: Clip) -> None:
    tower, pixels = tower_of(tiny), pixels_for(tiny, 5)
    start = len(tower.segments) - 2
    inputs, names = tower(pixels, 0, start), tower.weights(start)
    texts = nn.functional.normalize(torch.randn(5, 32, generator=torch.Generator().manual_seed(3)), dim=-1)
    expected = torch.zeros(len(names))
    for x, text in zip(inputs, texts, strict=True):
        weights = {name: tower.visual.get_parameter(name).clone().requires_grad_() for name in names}
        similarity = features(tower, weights, x[None], start)[0] @ text
        gradients = torch.autograd.grad(similarity, list(weights.values()))
        expected += torch.stack([gradient.square().mean() for gradient in gradients]) / 5
    assert torch.allclose(fisher_information(tower, names, inputs, start, texts), expected, rtol=1e-4)


def test_relative_fisher_by_hand() -> None:
    ratio = relative_fisher(torch.tensor([4.0, 1.0, 3.0]), torch.tensor([2.0, 4.0, 0.0]))
    assert ratio[:2].tolist() == pytest.approx([2.0, 0.25])
    assert torch.isfinite(ratio).all()
