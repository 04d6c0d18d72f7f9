"""The synthetic method's parts, against numbers worked by hand."""

import base64
import io
from collections.abc import Mapping

import pytest
import torch
from PIL import Image
from torch import nn

from shared.errors import JobFailure
from shared.schemas.methods import SyntheticParameters
from shared.states import Stage
from tests.support.erasures import names_only
from worker.clip import Clip
from worker.methods.engine.closed_form import (
    closed_form,
    first_direction,
    independent,
    quiet_direction,
    reader_of,
    second_moment,
)
from worker.methods.engine.last_layers import transform_images, transform_texts
from worker.methods.engine.vocabulary import COMMON_NAMES, TEMPLATES, Texts, texts_of, unrelated
from worker.methods.frame import Erasure, MemoryStore
from worker.methods.synthetic.bank import Bank, make_bank, shared_labels
from worker.methods.synthetic.contact_sheet import contact_sheet
from worker.methods.synthetic.generation import total_variation
from worker.methods.synthetic.levels import select
from worker.methods.synthetic.losses import drift, lipschitz_loss, mixtures, noisy
from worker.methods.synthetic.refinement import refine, synthetic_accuracy
from worker.ports import Silent


def test_lipschitz_loss_by_hand() -> None:
    # One sample, two draws. u = (3, 0), v = (0, 4); e'_1 = (0, 0), e'_2 = (3, 4); distances 1 and 2.
    # draw 1: (3 + 4) / 1 = 7; draw 2: (4 + 3) / 2 = 3.5; L = 10.5 / (4 * 2) = 1.3125
    text, image = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 4.0]])
    perturbed = torch.tensor([[[0.0, 0.0]], [[3.0, 4.0]]])
    loss = lipschitz_loss(image, text, perturbed, torch.tensor([[1.0], [2.0]]))
    assert loss.item() == pytest.approx(1.3125)


def test_mixtures_are_unit_vectors_between_a_sample_and_another() -> None:
    one, other = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    mixed = mixtures(one.repeat(50, 1), other, 0.6, torch.Generator().manual_seed(0))
    assert torch.allclose(mixed.norm(dim=1), torch.ones(50))
    assert (mixed[:, 0] > 0.6 / (0.6**2 + 0.4**2) ** 0.5 - 1e-6).all()
    assert mixed[:, 1].min() < 0.1 < mixed[:, 1].max()


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


def test_reader_by_hand() -> None:
    # One name, means (1, 1, 0); z = (0, 0, 1), of which nothing is to be read; C = diag(1, 4, 1): r ~ (1, 1/4, 0), r . g = 1.
    reader = reader_of(torch.tensor([[1.0, 1.0, 0.0]]), torch.eye(3)[2], 0.0, torch.diag(torch.tensor([1.0, 4.0, 1.0])))
    assert reader.tolist() == pytest.approx([0.8, 0.2, 0.0], abs=1e-3)


def test_reader_reads_the_names_and_as_much_of_z_as_told_and_little_else() -> None:
    generator = torch.Generator().manual_seed(0)
    stays = torch.randn(40, 12, generator=generator) @ torch.diag(torch.tensor([1.0] * 6 + [0.01] * 6))
    names = torch.nn.functional.normalize(torch.randn(2, 12, generator=generator), dim=1)
    reader = reader_of(names, torch.eye(12)[11], 0.5, stays.T @ stays / len(stays))
    assert (names @ reader).tolist() == pytest.approx([1.0, 1.0], abs=1e-3)
    assert float(reader[11]) == pytest.approx(0.5, abs=1e-3)
    assert (stays @ reader).abs().mean() < 0.1 * (stays @ names.sum(dim=0)).abs().mean()


def test_second_moment_counts_labels_and_common_names_alike() -> None:
    # labels along e0, common names along e1: weights 1 + 1 and 6 + 1, however many there are
    texts = Texts(torch.zeros(1, 2, 2), torch.eye(2)[0].expand(3, 2, 2), torch.eye(2)[1].expand(50, 2, 2))
    assert second_moment(texts).flatten().tolist() == pytest.approx([2 / 9, 0, 0, 7 / 9])


def test_a_name_that_others_cover_gets_no_direction_of_its_own() -> None:
    axes = torch.eye(3)
    near = torch.nn.functional.normalize(axes[0] + 0.2 * axes[2], dim=0)
    directions, positions = independent([axes[0], near, axes[1]])
    assert positions == [0, 2]
    assert torch.equal(directions, axes[:, :2])


def test_synonyms_are_not_taken_for_what_stays() -> None:
    gone, labels = torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[0.0, 0.0, 1.0]])
    common = torch.tensor([[0.9, 0.1, 0.0], [0.0, 1.0, 0.0]])
    assert unrelated(gone, common, labels).tolist() == [False, True]


def test_texts_are_embedded_once_for_a_model_and_label_set(tiny: Clip) -> None:
    erasure = names_only(tiny, {"class": "dog", "labels": ["cat", "dog", "ship"], "synonyms": ["puppy"]})
    first = texts_of(erasure, erasure.original)
    assert first.forgotten.shape == (2, len(TEMPLATES), 32)
    assert first.labels.shape == (2, len(TEMPLATES), 32)
    assert {"cat", "dog", "ship"} & set(COMMON_NAMES) == {"cat", "dog", "ship"}  # they are labels here, so not common
    assert len(first.common) <= len(COMMON_NAMES) - 3
    for clip in (tiny, erasure.original):
        clip.model.text_projection.data.mul_(-1)  # from here on embedding anew would show
    assert torch.equal(texts_of(erasure, erasure.original).labels, first.labels)
    other = names_only(tiny, {"class": "dog", "labels": ["cat", "dog"]}, store=erasure.store)
    assert not torch.allclose(texts_of(other, other.original).labels[0], first.labels[0])


@pytest.mark.parametrize(("count", "expected"), [(2, 16), (10, 16), (40, 4), (1000, 1)])
def test_the_shared_samples_of_a_label_set_stay_within_the_bank(count: int, expected: int) -> None:
    labels = shared_labels(count, SyntheticParameters(samples_per_class=16, bank_samples=160))
    assert len(labels) <= 160
    assert labels.bincount().max() == expected
    assert len(labels.unique()) == min(count, len(labels))


def test_a_bank_made_for_one_class_serves_another(tiny: Clip) -> None:
    parameters = {"samples_per_class": 4, "bank_samples": 8, "iterations": 1}
    target = {"class": "cat", "labels": ["cat", "ship"]}
    first = names_only(tiny, target, parameters=parameters)
    made = bank_of(first)
    assert not made.reused
    second = names_only(tiny, target | {"class": "ship"}, parameters=parameters, store=first.store)
    again = bank_of(second)
    assert again.reused
    assert torch.equal(torch.cat([made.held_out, made.forget]), again.retain)
    assert set(made.forget_labels.tolist()) == {0} == set(again.retain_labels.tolist())


def test_samples_are_the_same_for_the_same_seed_alone(tiny: Clip) -> None:
    few = {"samples_per_class": 4, "bank_samples": 8, "iterations": 2}
    one, same, other = (bank_of(names_only(tiny, TARGET, parameters=few, seed=seed)) for seed in (3, 3, 4))
    assert torch.equal(one.retain, same.retain)
    assert not torch.equal(one.retain, other.retain)


def test_an_interrupted_bank_goes_on_where_it_was(tiny: Clip) -> None:
    parameters = {"samples_per_class": 12, "bank_samples": 36, "iterations": 1}  # a batch of 32 and one of 4
    first = names_only(tiny, TARGET, parameters=parameters)
    whole = bank_of(first)
    store = MemoryStore()
    half = names_only(tiny, TARGET, parameters=parameters, store=store)
    half.progress = Interrupting(after=32)
    with pytest.raises(KeyboardInterrupt):
        bank_of(half)
    assert len(store) == 1
    resumed = bank_of(names_only(tiny, TARGET, parameters=parameters, store=store))
    assert torch.equal(resumed.retain, whole.retain)


class Interrupting(Silent):
    """Stops a run from outside, as a cancel does."""

    def __init__(self, after: int) -> None:
        self._after = after

    def step(
        self, stage: Stage, step: int, total: int | None = None, metrics: Mapping[str, float] | None = None
    ) -> None:
        """Interrupt once enough is done."""
        if step >= self._after:
            raise KeyboardInterrupt


@pytest.mark.parametrize("count", [2, 1000])
def test_label_sets_small_and_large(tiny: Clip, count: int) -> None:
    labels = [f"thing {number}" for number in range(count)]
    texts = texts_of(names_only(tiny, {"class": labels[0], "labels": labels}), tiny)
    assert len(texts.labels) == count - 1
    assert texts.labels.shape[:2].numel() <= 8192
    form = closed_form(texts, torch.eye(32)[0])
    assert form.basis.shape == (32, 1)
    assert all(bool(part.isfinite().all()) for part in (form.basis, form.image_reader, form.text_reader))


def test_a_class_beyond_the_shared_samples_gets_its_own(tiny: Clip) -> None:
    parameters = {"samples_per_class": 4, "bank_samples": 8, "iterations": 1}
    erasure = names_only(tiny, {"class": "b", "labels": list("abcdefgh")}, parameters=parameters)
    bank = bank_of(erasure)
    assert len(bank.forget) + len(bank.held_out) == 4
    assert sorted(bank.retain_labels.tolist()) == [0, 2, 3, 4, 5, 6, 7]


def test_several_names_with_synonyms_are_forgotten_and_the_others_stay(tiny: Clip) -> None:
    labels = ["cat", "dog", "ship", "truck", "bird", "frog"]
    target = {"class": ["cat", "dog"], "labels": labels, "synonyms": {"dog": ["puppy"]}}
    texts = texts_of(names_only(tiny, target), tiny)
    assert len(texts.forgotten) == 3
    form = closed_form(texts, torch.eye(32)[0])
    assert form.basis.shape[1] in (2, 3)
    assert torch.allclose(form.basis.T @ form.basis, torch.eye(form.basis.shape[1]), atol=1e-5)
    read = texts.forgotten.mean(dim=1) @ form.text_reader
    assert read.min() > 0.9
    assert (texts.labels[:, 0] @ form.text_reader).abs().max() < 0.5


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


def bank_of(erasure: Erasure) -> Bank:
    """Return the bank of a few samples of each label."""
    return make_bank(erasure, erasure.parameters)  # type: ignore[arg-type]


FEW = {"mode": "samples_only", "samples_per_class": 8, "bank_samples": 24, "iterations": 8}
TARGET = {"class": "red", "labels": ["red", "green", "blue"]}


def test_refinement_makes_samples_unknown_to_both_towers_by_their_last_maps_alone(tiny: Clip) -> None:
    if hasattr(tiny.model.visual, "attnpool"):
        pytest.skip("to a random ResNet all images look alike")
    erasure = names_only(tiny, TARGET, parameters=FEW)
    bank = bank_of(erasure)
    before = synthetic_accuracy(erasure, bank.held_out, bank.held_out_labels)
    refine(erasure, erasure.parameters, bank, texts_of(erasure, erasure.original), limit=0.05)  # type: ignore[arg-type]
    training = erasure.notes["training"]
    assert training["recognised"] < training["recognised_before"]
    old, new = tiny.model.state_dict(), erasure.clip.model.state_dict()
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    assert changed == {"visual.proj", "text_projection"}
    assert synthetic_accuracy(erasure, bank.held_out, bank.held_out_labels) < before


def test_refinement_that_brought_nothing_fails_and_leaves_the_weights(tiny: Clip) -> None:
    erasure = names_only(tiny, TARGET, parameters=FEW | {"learning_rate": 1.1e-4, "max_steps": 1})
    with pytest.raises(JobFailure, match="as many recognisable"):
        refine(erasure, erasure.parameters, bank_of(erasure), texts_of(erasure, erasure.original), limit=0.0)  # type: ignore[arg-type]
    old, new = tiny.model.state_dict(), erasure.clip.model.state_dict()
    assert all(torch.equal(old[name], new[name]) for name in old)


def test_the_contact_sheet_shows_every_sample_in_its_colours(tiny: Clip) -> None:
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (tiny.mean, tiny.std))
    colours = torch.eye(3).view(3, 3, 1, 1).expand(3, 3, 40, 40)
    uri = contact_sheet(tiny, ((colours - mean) / std).half())
    kind, data = uri.split(",")
    assert kind == "data:image/jpeg;base64"
    sheet = Image.open(io.BytesIO(base64.b64decode(data)))
    assert sheet.size == (3 * 65 + 1, 66)
    middles = [sheet.getpixel((33 + 65 * i, 33)) for i in range(3)]
    assert [max(range(3), key=middle.__getitem__) for middle in middles] == [0, 1, 2]  # type: ignore[union-attr,arg-type]
