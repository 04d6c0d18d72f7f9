"""The tensors of a TorchScript archive, as OpenAI gives its CLIP models, read without running any
of its code.

`torch.jit.load` would compile and could run what the archive holds. Here the archive is a zip,
its `data.pkl` is read by an unpickler that knows tensors, storages and containers and takes
every module for a bag of attributes, and its code is looked at as text, for the one thing that
no tensor tells: the activation."""

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from shared.files.archive_members import MAX_READ_BYTES, explained
from shared.files.errors import invalid, shown, words
from shared.settings import MIB
from shared.weights.tensor_files import ARRAYS, MAX_TENSORS, Array, NewTensor, Shape, TensorInfo

MAX_CODE_BYTES = 16 * MIB
MAX_DEPTH = 32
STORAGES = {
    "DoubleStorage": "F64",
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
}
"""Of torch, and the names that safetensors gives to their types."""


@dataclass(frozen=True, slots=True)
class _Storage:
    dtype: str
    key: str
    count: int


@dataclass(frozen=True, slots=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: Shape
    strides: Shape


@dataclass(slots=True)
class _Module:
    """What stands for an object of any class of the archive: nothing is known of it but its
    attributes.
    """

    attributes: dict[Any, Any] = field(default_factory=dict)

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.attributes = state


class TorchScript:
    """An open archive.

    Raises:
        InvalidRequest: it is damaged, or holds anything besides tensors and modules.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with explained(path.name), zipfile.ZipFile(path) as archive:
            self._parts = {
                PurePosixPath(part.filename).parts[1:]: part for part in archive.infolist()
            }
            root = _unpickled(self._content(archive, ("data.pkl",)), path.name)
            self.quick_gelu = self._has_quick_gelu(archive)
        self._tensors = dict(_tensors(root))
        if not 0 < len(self._tensors) <= MAX_TENSORS:
            raise invalid(
                f"{path.name} is a TorchScript archive with {len(self._tensors)} tensors; give "
                "a "
                "CLIP's weights"
            )

    @property
    def infos(self) -> Mapping[str, TensorInfo]:
        """Type and shape of every tensor."""
        return {
            name: TensorInfo(tensor.storage.dtype, tensor.shape)
            for name, tensor in self._tensors.items()
        }

    def tensors(self) -> dict[str, NewTensor]:
        """Return the tensors, to be written one by one."""
        return {name: NewTensor(info, self._reader(name)) for name, info in self.infos.items()}

    def _reader(self, name: str) -> Callable[[], Array]:
        return lambda: self._values(name)

    def _values(self, name: str) -> Array:
        tensor = self._tensors[name]
        kind = ARRAYS[tensor.storage.dtype]
        with explained(self._path.name), zipfile.ZipFile(self._path) as archive:
            part = self._parts.get(("data", tensor.storage.key))
            if part is None or part.file_size > self._path.stat().st_size:
                raise invalid(
                    f"{self._path.name} is damaged: the values of {shown(name)} are missing"
                )
            flat = np.frombuffer(archive.read(part), kind)
        last = tensor.offset + sum(
            (size - 1) * step for size, step in zip(tensor.shape, tensor.strides, strict=True)
        )
        if 0 in tensor.shape:
            return np.empty(tensor.shape, kind)
        if last >= flat.size:
            raise invalid(f"{self._path.name} is damaged: {shown(name)} goes beyond its values")
        steps = tuple(step * kind.itemsize for step in tensor.strides)
        return np.lib.stride_tricks.as_strided(
            flat[tensor.offset :], tensor.shape, steps, writeable=False
        )

    def _content(self, archive: zipfile.ZipFile, name: tuple[str, ...]) -> bytes:
        part = self._parts.get(name)
        if part is None or part.file_size > MAX_READ_BYTES:
            raise invalid(
                f"{self._path.name} is no sound TorchScript archive: it lacks {'/'.join(name)}"
            )
        return archive.read(part)

    def _has_quick_gelu(self, archive: zipfile.ZipFile) -> bool:
        """QuickGELU is x * sigmoid(1.702 x); nothing else in a CLIP calls sigmoid."""
        code = [
            part
            for names, part in self._parts.items()
            if names and names[0] == "code" and names[-1].endswith(".py")
        ]
        if sum(part.file_size for part in code) > MAX_CODE_BYTES:
            raise invalid(
                f"{self._path.name} is a TorchScript archive with more than {MAX_CODE_BYTES} "
                "bytes "
                "of code"
            )
        text = b"".join(archive.read(part) for part in code)
        return b"torch.sigmoid(" in text and b"torch.gelu(" not in text


class _Unpickler(pickle.Unpickler):
    """Makes tensors, storages, containers and `_Module`; no name of the archive is ever
    imported.
    """

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401 - a few classes and functions
        if module == "torch._utils" and name.startswith("_rebuild_tensor"):
            return _rebuilt
        if module == "torch._utils" and name == "_rebuild_parameter":
            return _parameter
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch.jit._pickle":
            return _given
        if module.split(".")[0] == "__torch__":
            return _Module
        raise pickle.UnpicklingError(f"it names {module}.{name}")

    def persistent_load(self, pid: Any) -> _Storage:  # noqa: ANN401 - as pickle has it
        if not (
            isinstance(pid, tuple) and len(pid) == 5 and pid[0] == "storage" and pid[1] in ARRAYS
        ):
            raise pickle.UnpicklingError("it names something that is no storage")
        return _Storage(str(pid[1]), str(pid[2]), int(pid[4]))


def _unpickled(content: bytes, name: str) -> object:
    try:
        return _Unpickler(io.BytesIO(content)).load()
    except Exception as error:  # pickle raises whatever a damaged file leads it to
        raise invalid(
            f"{name} is a TorchScript archive that holds more than a model's tensors "
            f"({words(error)[:80]}); where you trust it,"
            " convert it: torch.save(torch.jit.load(FILE).state_dict(), 'model.pt')"
        ) from error


def _rebuilt(storage: object, offset: int, shape: Shape, strides: Shape, *_: object) -> _Tensor:
    sizes = (*shape, *strides, offset)
    if not isinstance(storage, _Storage) or not all(
        isinstance(size, int) and size >= 0 for size in sizes
    ):
        raise pickle.UnpicklingError("it holds a tensor without values")
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _parameter(data: object, *_: object) -> object:
    return data


def _given(value: object = None, *_: object) -> object:
    return value


def _tensors(root: object, start: str = "", depth: int = 0) -> Iterator[tuple[str, _Tensor]]:
    if not isinstance(root, _Module) or depth > MAX_DEPTH:
        return
    for name, value in root.attributes.items():
        if isinstance(value, _Tensor):
            yield f"{start}{name}", value
        else:
            yield from _tensors(value, f"{start}{name}.", depth + 1)
