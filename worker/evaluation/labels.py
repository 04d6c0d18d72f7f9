"""Whether a model can tell its labels apart at all: it cannot where its tokenizer makes the same
of two prompts.
"""

from collections.abc import Sequence

from shared.errors import JobFailure
from worker.clip import Clip
from worker.clip.classifier import prompts
from worker.evaluation.plan import Plan


def check_told_apart(clip: Clip, plan: Plan, templates: Sequence[str]) -> None:
    """Compare the tokens that the model reads of the labels that a request gives.

    The gateway knows CLIP's own tokenizer, not those of other text towers, nor how many tokens a
    tower reads.

    Raises:
        JobFailure: `invalid_labels`, with the first two that are one.
    """
    given = dict.fromkeys(m.labels for m in plan.measurements if m.role != "transfer")
    for labels in dict.fromkeys((plan.labels, *given)):
        same = told_as_one(clip, labels, templates)
        if same:
            detail = (
                "give them names that differ earlier, or shorter templates, or leave one of "
                "them out"
            )
            raise JobFailure(
                "invalid_labels",
                (
                    f"The model's tokenizer makes the same of the labels {same[0]!r} and "
                    f"{same[1]!r} "
                    f"in every prompt; {detail}."
                ),
            )


def told_as_one(
    clip: Clip, labels: Sequence[str], templates: Sequence[str]
) -> tuple[str, str] | None:
    """Return the first two labels whose prompts have the same tokens in all templates; None
    where there are none.
    """
    groups = [list(labels)]
    for template in templates:  # after the first one hardly any are left
        groups = [
            same for group in groups for same in _groups(clip, group, template) if len(same) > 1
        ]
    return (groups[0][0], groups[0][1]) if templates and groups else None


def _groups(clip: Clip, labels: list[str], template: str) -> list[list[str]]:
    rows = clip.tokenizer([text for label in labels for text in prompts(label, (template,))])
    found: dict[tuple[int, ...], list[str]] = {}
    for label, row in zip(labels, rows.tolist(), strict=True):
        found.setdefault(tuple(row), []).append(label)
    return list(found.values())
