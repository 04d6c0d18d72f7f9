"""The synthetic-sample method: names in, a class gone, no image asked for (arXiv 2407.07485), in
three modes.

Read in this order: `modes`; then `generation` and `bank` (samples), `vocabulary`, `last_layers`
and `closed_form`, `losses`, `levels`, `refinement`."""

from shared.schemas.methods import MethodParameters
from shared.states import Stage
from worker.methods.frame import MethodStage
from worker.methods.synthetic.modes import forget, synthesize


def stages(parameters: MethodParameters) -> tuple[MethodStage, ...]:
    """Return the stages, the same in every mode; the mode decides what happens in them."""
    del parameters  # each stage reads them from the erasure
    return (MethodStage(Stage.SYNTHESIZING, synthesize), MethodStage(Stage.FORGETTING, forget))
