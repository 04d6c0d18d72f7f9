"""What the report says beside its numbers: what old embeddings still answer, and where the original came from."""

import pytest

from shared.schemas.measure_catalogue import SAMPLES
from shared.schemas.measures import Measure, Value
from shared.schemas.report import ModelChange, Separation
from worker.evaluation.findings import found
from worker.evaluation.suite import AuditResult
from worker.report import _made_by, embedding_limits, separation_limits


def audit(*measures: Measure) -> AuditResult:
    return AuditResult(measures, (), (), None)


def recall(name: str, value: float, where: str = "objects", n: int = 80) -> Measure:
    return found(name, where, Value(value=value, n=n))


def change(*towers: str) -> ModelChange:
    body = {"tensors_changed": 1, "tensors_total": 2, "parameters_changed": 1, "parameters_total": 2, "towers": towers}
    return ModelChange.model_validate(body)


@pytest.mark.parametrize(
    ("towers", "words"),
    [
        ((), []),
        (("image",), ["Embeddings of images that exist already"]),
        (("text",), ["Embeddings of texts that exist already"]),
        (("image", "text"), ["Embeddings of images that exist already", "Embeddings of texts that exist already"]),
    ],
)
def test_embeddings_of_an_edited_encoder_are_to_be_made_again(towers: tuple[str, ...], words: list[str]) -> None:
    taken = audit(recall("original_image_recall", 0.8375), recall("original_text_recall", 0.0))
    said = list(embedding_limits(change(*towers), taken))
    assert [sentence[: len(start)] for sentence, start in zip(said, words, strict=True)] == words
    assert all("with the edited model" in sentence for sentence in said)
    for sentence in said:
        assert ("83.8% of 80 images" if "of images that exist" in sentence else "0.0% of 80 images") in sentence


def test_the_worst_set_of_real_images_is_named_and_samples_where_there_is_none() -> None:
    on_samples = recall("original_image_recall", 1.0, where=SAMPLES, n=4)
    both = audit(
        recall("original_image_recall", 0.1), recall("original_image_recall", 0.5, where="b", n=20), on_samples
    )
    assert "50.0% of 20 images" in next(iter(embedding_limits(change("image"), both)))
    assert "100.0% of 4 synthetic samples" in next(iter(embedding_limits(change("image"), audit(on_samples))))
    assert "was not measured" in next(iter(embedding_limits(change("image"), audit())))


def test_a_model_from_a_job_says_which() -> None:
    assert _made_by("storage:tenants/tnt_1/jobs/job_7/2/model") == "job_7"
    assert _made_by("storage:tenants/tnt_1/models/mdl_1") is None
    assert _made_by("local-dir:/tenants/t/jobs/j/") is None


def test_limits_name_no_image() -> None:
    pair = Separation(place="own", seen_as="forget", identical=2, similar=3, compared=9, example="Jane Doe/1.png")
    left_out, alike = separation_limits([pair])
    assert "2 of data.forget" in left_out
    assert "3 of 9 like one of data.forget" in alike
    assert "Jane" not in left_out + alike
    assert list(separation_limits([pair.model_copy(update={"identical": 0, "similar": 0})])) == []
