"""The synthetic method's parts, against numbers worked by hand."""

import math
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from torch import nn

from worker.clip import Clip
from worker.methods.frame import Erasure
from worker.methods.synthetic.closed_form import (
    first_direction,
    independent,
    quiet_direction,
    readers_of,
    second_moment,
)
from worker.methods.synthetic.generation import total_variation
from worker.methods.synthetic.last_layers import transform_images, transform_texts
from worker.methods.synthetic.levels import select
from worker.methods.synthetic.losses import drift, lipschitz_loss, masked_divergence, noisy
from worker.methods.synthetic.vocabulary import COMMON_NAMES, common_embeddings, unrelated


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


def test_first_direction_is_the_common_one_and_points_to_its_side() -> None:
    offsets = torch.tensor([[-3.0, 0.1], [-3.0, -0.1]])
    assert first_direction(offsets).tolist() == pytest.approx([-1.0, 0.0], abs=1e-5)


def test_readers_by_hand() -> None:
    # C = diag(1, 4), D = (1, 1) / sqrt 2: C^-1 D is along (4, 1), scaled so that W . D = 1.
    directions = torch.tensor([[1.0], [1.0]]) / 2**0.5
    readers = readers_of(directions, torch.diag(torch.tensor([1.0, 4.0])))
    assert readers.flatten().tolist() == pytest.approx([4 * 2**0.5 / 5, 2**0.5 / 5])


def test_readers_read_their_own_direction_and_little_else() -> None:
    generator = torch.Generator().manual_seed(0)
    stays = torch.randn(40, 6, generator=generator) @ torch.diag(torch.tensor([1.0, 1, 1, 1, 0.01, 0.01]))
    directions = torch.nn.functional.normalize(torch.randn(6, 2, generator=generator), dim=0)
    readers = readers_of(directions, second_moment(stays))
    assert torch.allclose(readers.T @ directions, torch.eye(2), atol=1e-4)
    assert (stays @ readers).abs().mean() < 0.3 * (stays @ directions).abs().mean()


def test_a_name_that_others_cover_gets_no_direction_of_its_own() -> None:
    axes = torch.eye(3)
    near = torch.nn.functional.normalize(axes[0] + 0.2 * axes[2], dim=0)
    directions, kept = independent([axes[0], near, axes[1]])
    assert kept == [0, 2]
    assert torch.equal(directions, axes[:, :2])


def test_synonyms_are_not_taken_for_what_stays() -> None:
    gone = torch.tensor([[[1.0, 0.0, 0.0]]])
    common = torch.tensor([[[0.9, 0.1, 0.0]], [[0.0, 1.0, 0.0]]])
    assert unrelated(gone, common, torch.zeros(1, 3)).tolist() == [False, True]


def test_common_names_are_embedded_once_for_a_model(tiny: Clip) -> None:
    kept: dict[str, dict[str, torch.Tensor]] = {}
    store = SimpleNamespace(load=kept.get, save=kept.__setitem__)
    erasure = cast(Erasure, SimpleNamespace(original=tiny, store=store))
    first = common_embeddings(erasure, ["a {}.", "{}"])
    assert first.shape == (len(COMMON_NAMES), 2, 32)
    tiny.model.text_projection.data.zero_()  # from here on embedding anew would show
    assert torch.equal(common_embeddings(erasure, ["a {}.", "{}"]), first)
    assert not torch.equal(common_embeddings(erasure, ["the {}.", "{}"]), first)


def test_images_are_transformed_as_told(tiny: Clip) -> None:
    generator = torch.Generator().manual_seed(0)
    matrix, offset = torch.randn(32, 32, generator=generator), torch.randn(32, generator=generator)
    norm = getattr(tiny.model.visual, "ln_post", None)
    if norm is not None:  # as after a training
        torch.nn.init.uniform_(norm.weight, 0.5, 1.5, generator=generator)
        torch.nn.init.uniform_(norm.bias, 0.1, 0.5, generator=generator)
    pixels = torch.randn(4, 3, tiny.image_size, tiny.image_size, generator=generator)
    with torch.no_grad():
        before = tiny.model.encode_image(pixels)
        assert transform_images(tiny.model, matrix, offset)
        assert torch.allclose(tiny.model.encode_image(pixels), before @ matrix.T + offset, atol=1e-3)


def test_a_norm_without_bias_takes_no_offset(tiny: Clip) -> None:
    if not hasattr(tiny.model.visual, "ln_post"):
        pytest.skip("this tower ends in a layer with a bias")
    assert not transform_images(tiny.model, torch.eye(32), torch.ones(32))  # the bias is zero before any training


def test_texts_are_transformed_as_told(tiny: Clip) -> None:
    matrix = torch.randn(32, 32, generator=torch.Generator().manual_seed(0))
    tokens = tiny.tokenizer(["a horse", "two"])
    with torch.no_grad():
        before = tiny.model.encode_text(tokens)
        transform_texts(tiny.model, matrix)
        assert torch.allclose(tiny.model.encode_text(tokens), before @ matrix.T, atol=1e-3)


def test_the_quiet_direction_is_that_of_the_least_output() -> None:
    projection = torch.diag(torch.tensor([3.0, 0.1, 2.0]))
    assert quiet_direction(projection).abs().tolist() == pytest.approx([0.0, 1.0, 0.0], abs=1e-6)


def test_total_variation_by_hand() -> None:
    image = torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]])  # down: 0, across: 1
    assert total_variation(image).item() == pytest.approx(1.0)
