"""The synthetic method's parts, against numbers worked by hand."""

import math

import pytest
import torch
from torch import nn

from worker.methods.synthetic.closed_form import first_direction
from worker.methods.synthetic.generation import total_variation
from worker.methods.synthetic.levels import select
from worker.methods.synthetic.losses import drift, lipschitz_loss, masked_divergence, noisy


def test_lipschitz_loss_by_hand() -> None:
    # One sample, two draws. u = (3, 0), v = (0, 4); e'_1 = (0, 0), e'_2 = (3, 4); distances 1 and 2.
    # draw 1: (3 + 4) / 1 = 7; draw 2: (4 + 3) / 2 = 3.5; L = 10.5 / (4 * 2) = 1.3125
    text, image = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 4.0]])
    perturbed = torch.tensor([[[0.0, 0.0]], [[3.0, 4.0]]])
    loss = lipschitz_loss(image, text, perturbed, torch.tensor([[1.0], [2.0]]))
    assert loss.item() == pytest.approx(1.3125)


def test_masked_divergence_by_hand() -> None:
    # q is softmax of the original (ln 2, 0, 5) without the last column: (2/3, 1/3, 0). p is uniform over three.
    # KL = 2/3 ln(2/3 * 3) + 1/3 ln(1/3 * 3) = 2/3 ln 2
    original = torch.tensor([[math.log(2.0), 0.0, 5.0]])
    loss = masked_divergence(torch.zeros(1, 3), original, [2])
    assert loss.item() == pytest.approx(2 / 3 * math.log(2), abs=1e-6)


def test_masked_divergence_is_zero_at_its_goal() -> None:
    original = torch.tensor([[1.0, 2.0, 3.0]])
    goal = torch.tensor([[1.0, 2.0, -100.0]])
    assert masked_divergence(goal, original, [2]).item() == pytest.approx(0.0, abs=1e-6)


def test_drift_by_hand() -> None:
    # cosines 1 and 0: mean(1 - cos) = 0.5
    a, b = torch.tensor([[2.0, 0.0], [1.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 5.0]])
    assert drift(a, b).item() == pytest.approx(0.5)


def test_noise_is_fresh_clamped_and_repeatable() -> None:
    x = torch.linspace(-1, 1, 24).reshape(2, 3, 2, 2)
    one = noisy(x, 0.5, 3, torch.Generator().manual_seed(1))
    assert one.shape == (3, 2, 3, 2, 2)
    assert one.min() >= -1
    assert one.max() <= 1
    assert not torch.equal(one[0], one[1])
    assert torch.equal(one, noisy(x, 0.5, 3, torch.Generator().manual_seed(1)))


def test_selection_keeps_the_largest_mean_gradients() -> None:
    tensors = [nn.Parameter(torch.zeros(n)) for n in (4, 1, 2)]
    for tensor, gradient in zip(tensors, (0.1, 5.0, 1.0), strict=True):
        tensor.grad = torch.full_like(tensor, gradient)  # by sum the first would beat none: 0.4, 5, 2
    select(tensors, 2)
    assert tensors[0].grad is None
    assert tensors[1].grad is not None
    assert tensors[2].grad is not None


def test_first_direction_is_the_common_one() -> None:
    offsets = torch.tensor([[3.0, 0.1], [3.0, -0.1]])
    assert first_direction(offsets).abs().tolist() == pytest.approx([1.0, 0.0], abs=1e-5)


def test_projection_and_reflection_as_derived() -> None:
    u = torch.nn.functional.normalize(torch.randn(8, 1, generator=torch.Generator().manual_seed(0)), dim=0)
    p, r = torch.eye(8) - u @ u.T, torch.eye(8) - 2 * u @ u.T
    t, v = torch.randn(8), torch.randn(8)
    assert torch.allclose(p @ r, p, atol=1e-6)
    assert torch.allclose((r @ t).norm(), t.norm(), atol=1e-5)
    assert torch.allclose((p @ v) @ (r @ t), (p @ v) @ t, atol=1e-5)
    assert (u.T @ (p @ v)).item() == pytest.approx(0.0, abs=1e-5)


def test_total_variation_by_hand() -> None:
    image = torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]])  # down: 0, across: 1
    assert total_variation(image).item() == pytest.approx(1.0)
