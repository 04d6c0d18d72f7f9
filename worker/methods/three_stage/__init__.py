"""The three-stage method: forget, remind, restore (Zhang et al. 2025, arXiv 2506.03117), for
subgroups and for classes with images.

Read `forgetting`, `reminding` and `restoring`, one stage each; then their parts: `selection` and
`fisher` (which layers), `adapters` (LoRA), `losses`, `ema`, `alignment`, `prompts` and `views`
(texts and images), `material` and `tower` (what is computed once)."""

from collections.abc import Callable

from shared.schemas.methods import MethodParameters, ThreeStageParameters
from shared.states import Stage
from worker.methods.engine.prepared_data import Material
from worker.methods.frame import Erasure, MethodStage
from worker.methods.three_stage.forgetting import forgetting
from worker.methods.three_stage.reminding import reminding
from worker.methods.three_stage.restoring import restoring

Body = Callable[[Erasure, Material, ThreeStageParameters], None]


def stages(parameters: MethodParameters) -> tuple[MethodStage, ...]:
    """Return the stages of one erasure. Those that run in one process share the prepared images
    and texts.
    """
    if not isinstance(parameters, ThreeStageParameters):
        raise TypeError(f"three_stage cannot run with {type(parameters).__name__}")
    prepared: list[Material] = []

    def stage(name: Stage, body: Body) -> MethodStage:
        def run(erasure: Erasure) -> None:
            if not prepared or prepared[0].erasure is not erasure:
                prepared[:] = [Material(erasure, parameters)]
            body(erasure, prepared[0], parameters)

        return MethodStage(name, run)

    return (
        stage(Stage.FORGETTING, forgetting),
        stage(Stage.REMINDING, reminding),
        stage(Stage.RESTORING, restoring),
    )
