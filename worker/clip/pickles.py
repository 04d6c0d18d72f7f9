"""Weights in torch files, found wherever training has put them, and written as safetensors."""

import pickle
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from shared.errors import InvalidRequest
from shared.files.checkpoints import Understood, is_torchscript
from shared.files.errors import invalid
from shared.weights.tensor_files import TensorInfo, write_safetensors
from shared.weights.torchscript import TorchScript
from shared.weights.weight_names import listed

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
MAX_DEPTH = 4
"""Of wrappers around a state dict."""

Understand = Callable[[Mapping[str, TensorInfo]], Understood]
Tensors = dict[str, Tensor]


def as_safetensors(path: Path, target: Path, understand: Understand) -> tuple[Path, bool | None]:
    """Write the model's tensors in a torch file as safetensors; return that file, and whether its
    code has QuickGELU (None where it has no code).

    Args:
        path: what `torch.save` or `torch.jit.save` wrote. Nothing of it is run.
        target: what to write.
        understand: tells of a mapping's tensors what they are, or raises `InvalidRequest`. Of
            several mappings in the file the one is taken that this understands.

    Raises:
        InvalidRequest: the file holds more than weights, no model that is understood, or several.
    """
    if is_torchscript(path):
        archive = TorchScript(path)
        write_safetensors(target, archive.tensors())
        return target, archive.quick_gelu
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise invalid(
            "holds more than weights, or is damaged; give model.state_dict() as safetensors"
        ) from error
    save_file(_apart(_model_in(content, understand)), target)
    return target, None


def _model_in(content: object, understand: Understand) -> Tensors:
    """Return the one mapping of tensors that is understood."""
    found = dict(_mappings(content))
    fitting: list[str] = []
    refusals: dict[str, InvalidRequest] = {}
    for place, tensors in found.items():
        try:
            understand(
                {
                    name: TensorInfo(DTYPES.get(t.dtype, str(t.dtype)), tuple(t.shape))
                    for name, t in tensors.items()
                }
            )
            fitting.append(place)
        except InvalidRequest as error:
            refusals[place] = error
    if len(fitting) > 1:
        raise invalid(
            f"holds several models, below {listed([repr(place) for place in fitting], 150)}; "
            "keep "
            "one of them"
        )
    if fitting:
        return found[fitting[0]]
    if not refusals:
        raise invalid("holds no tensors by name; give model.state_dict()")
    raise refusals[max(refusals, key=lambda place: len(found[place]))]


def _mappings(content: object, place: str = "", depth: int = 0) -> Iterator[tuple[str, Tensors]]:
    """Yield every mapping of names to tensors in a file, by where it is; what else lies beside
    tensors is none of a model.
    """
    if not isinstance(content, Mapping) or depth > MAX_DEPTH:
        return
    tensors = {
        name: value
        for name, value in content.items()
        if isinstance(name, str) and isinstance(value, Tensor)
    }
    if tensors:
        yield place, tensors
    for name, value in content.items():
        if isinstance(name, str):
            yield from _mappings(value, f"{place}.{name}" if place else name, depth + 1)


def _apart(tensors: Tensors) -> Tensors:
    """Return the tensors as safetensors takes them: none shares its memory with another."""
    seen: set[int] = set()
    apart: dict[str, Any] = {}
    for name, tensor in tensors.items():
        whole = tensor.detach().contiguous()
        place = whole.untyped_storage().data_ptr()
        shared = place in seen or whole.untyped_storage().nbytes() != whole.nbytes
        apart[name] = whole.clone() if shared else whole
        seen.add(place)
    return apart
