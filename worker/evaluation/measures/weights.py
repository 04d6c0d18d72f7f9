"""What changed in the weights: entries that differ, and the bytes of the tensors they are in."""

from collections.abc import Sequence
from typing import Literal

import torch

from shared.schemas.measure_catalogue import WEIGHTS
from shared.schemas.measures import Value
from shared.schemas.report import ModelChange
from worker.clip import Clip
from worker.evaluation.findings import Findings, found
from worker.evaluation.views import Case

TEXT_TENSORS = (
    "transformer.",
    "token_embedding",
    "positional_embedding",
    "ln_final",
    "text_projection",
    "text.",
)


def measure(case: Case) -> Findings:
    """Yield the share of the parameters that changed and the bytes of their tensors."""
    change = case.change
    towers = f"towers: {', '.join(change.towers) or 'none'}"
    share = change.parameters_changed / change.parameters_total
    yield found(
        "parameters_changed", WEIGHTS, Value(value=share, n=change.parameters_total), detail=towers
    )
    yield found("bytes_changed", WEIGHTS, Value(value=change.bytes_changed), detail=towers)


def model_change(before: Clip, after: Clip) -> ModelChange:
    """Return how much of the weights an edit changed."""
    old, new = before.model.state_dict(), after.model.state_dict()
    changed = [name for name in old if not torch.equal(old[name].cpu(), new[name].cpu())]

    def entries(tensor_names: Sequence[str]) -> int:
        return sum(int((old[n].cpu() != new[n].cpu()).sum()) for n in tensor_names)

    towers: set[Literal["image", "text"]] = {
        "text" if n.startswith(TEXT_TENSORS) else "image" for n in changed
    }
    return ModelChange(
        tensors_changed=len(changed),
        tensors_total=len(old),
        parameters_changed=entries(changed),
        parameters_total=sum(tensor.numel() for tensor in old.values()),
        bytes_changed=sum(old[name].numel() * old[name].element_size() for name in changed),
        towers=tuple(sorted(towers)),
    )
