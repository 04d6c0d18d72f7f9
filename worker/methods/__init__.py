"""The methods, one package or file each. A name maps to its module, imported only when it is
asked for.
"""

from importlib import import_module

from shared.schemas.request import ErasureRequest
from worker.methods.frame import MethodStage

MODULES = {
    "synthetic": "worker.methods.synthetic",
    "three_stage": "worker.methods.three_stage",
    "null_space": "worker.methods.null_space",
    "delete": "worker.methods.delete",
    "slug": "worker.methods.slug",
    "clip_erase": "worker.methods.clip_erase",
    "pbu": "worker.methods.pbu",
    "gradient_ascent": "worker.methods.gradient_ascent",
}
"""`auto` is none of them: it chooses among them (`worker/methods/auto.py`)."""


def stages_of(request: ErasureRequest) -> tuple[MethodStage, ...]:
    """Return the stages of the requested method, in order. Each module offers
    `stages(parameters)`.
    """
    module = import_module(MODULES[request.method.name])
    stages: tuple[MethodStage, ...] = module.stages(request.method.parsed())
    return stages
