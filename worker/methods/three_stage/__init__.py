"""The three-stage method: forget, remind, restore (Zhang et al., arXiv 2506.03117), for subgroups and whole classes.

Read in this order: `forget`, `remind`, `restore`; then `losses`, `fisher`, `adapters`, `prompts`, `material`, `tower`.
"""

from collections.abc import Callable

from shared.schemas.methods import MethodParameters, ThreeStageParameters
from shared.states import Stage
from worker.methods.frame import Erasure, MethodStage
from worker.methods.three_stage.forget import forget
from worker.methods.three_stage.material import Material
from worker.methods.three_stage.remind import remind
from worker.methods.three_stage.restore import restore

Body = Callable[[Erasure, Material, ThreeStageParameters], None]


def stages(parameters: MethodParameters) -> tuple[MethodStage, ...]:
    """Return the stages of one erasure. In a process that runs several of them, they share the prepared images."""
    assert isinstance(parameters, ThreeStageParameters)  # noqa: S101  (the registry pairs them)
    shared: list[Material] = []

    def stage(name: Stage, body: Body) -> MethodStage:
        def run(erasure: Erasure) -> None:
            if not shared:
                shared.append(Material(erasure, parameters))
            body(erasure, shared[0], parameters)

        return MethodStage(name, run)

    return (
        stage(Stage.FORGETTING, forget),
        stage(Stage.REMINDING, remind),
        stage(Stage.RESTORING, restore),
    )
