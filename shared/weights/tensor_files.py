"""Tensors in safetensors files, read and written piece by piece with numpy alone; no torch, and
never a whole model in memory.

Values keep their bytes: numpy knows no bfloat16, so that such tensors are arrays of `uint16`,
which can be moved, cut and joined, and are converted by `float32` alone."""

import json
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from shared.files.errors import invalid, shown, words

Array = NDArray[Any]
Shape = tuple[int, ...]

WEIGHT_TYPES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
"""Bytes of one weight, by the name that safetensors gives to its type."""
COUNTERS = (
    "num_batches_tracked",
    "position_ids",
    "attn_mask",
    "input_resolution",
    "context_length",
    "vocab_size",
)
"""Last parts of the names of tensors that are no weights."""
MAX_TENSORS = 100_000
ARRAYS = {
    "BOOL": np.dtype("?"),
    "U8": np.dtype("<u1"),
    "I8": np.dtype("<i1"),
    "I16": np.dtype("<i2"),
    "U16": np.dtype("<u2"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "I32": np.dtype("<i4"),
    "U32": np.dtype("<u4"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "I64": np.dtype("<i8"),
    "U64": np.dtype("<u8"),
}
"""In the order in which safetensors sorts types; it writes the last one first."""
_ORDER = {dtype: -place for place, dtype in enumerate(ARRAYS)}
_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """What the header says of a tensor."""

    dtype: str
    """As safetensors names it, e.g. F32."""
    shape: Shape


@dataclass(frozen=True, slots=True)
class _Place:
    info: TensorInfo
    path: Path
    offset: int


class TensorFiles:
    """The tensors of one or several safetensors files, as one mapping.

    Raises:
        InvalidRequest: a file is damaged, holds no tensor or one that is no weight, or a tensor
            lies in two files.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._places: dict[str, _Place] = {}
        for path in paths:
            for name, place in _places(path):
                if name in self._places:
                    raise invalid(
                        f"{path.name} and {self._places[name].path.name} both hold "
                        f"{shown(name)}; "
                        "keep one"
                    )
                self._places[name] = place

    @property
    def infos(self) -> dict[str, TensorInfo]:
        """The headers."""
        return {name: place.info for name, place in self._places.items()}

    def __call__(self, name: str) -> Array:
        """Return a tensor as an array that is read when it is used."""
        place = self._places[name]
        kind = ARRAYS[place.info.dtype]
        if 0 in place.info.shape:
            return np.empty(place.info.shape, kind)
        if not place.info.shape:  # a map must have a size
            with place.path.open("rb") as file:
                file.seek(place.offset)
                return np.frombuffer(file.read(kind.itemsize), kind).reshape(())
        return np.memmap(place.path, kind, "r", place.offset, place.info.shape)


def check_safetensors(path: Path) -> None:
    """Check the header: tensors of weights side by side, from its end to the end of the file.

    Raises:
        InvalidRequest: it is damaged, holds no tensor, or one that is no weight.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            names = list(file.keys())
            found = {name: file.get_slice(name).get_dtype() for name in names}
    except (SafetensorError, OSError, ValueError) as error:
        raise invalid(f"{path.name} is not a sound safetensors file: {words(error)}") from error
    if not 0 < len(names) <= MAX_TENSORS:
        raise invalid(
            f"{path.name} holds {len(names)} tensors; at least one and at most {MAX_TENSORS} "
            "are "
            "taken"
        )
    for name, kind in found.items():
        if kind not in WEIGHT_TYPES and name.rpartition(".")[2] not in COUNTERS:
            raise invalid(
                f"{path.name} holds {shown(name)} as {kind}; weights must be "
                f"{', '.join(WEIGHT_TYPES)}"
            )


def float32(array: Array, dtype: str) -> Array:
    """Return the values of weights in float32; anything else stays what it is. Every float16 and
    bfloat16 is exact in it.
    """
    if dtype == "BF16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32, copy=False) if dtype in WEIGHT_TYPES else array


@dataclass(frozen=True, slots=True)
class NewTensor:
    """A tensor that is to be written."""

    info: TensorInfo
    make: Callable[[], Array]
    """Gives its values when they are due."""


def safetensors_chunks(
    tensors: Mapping[str, NewTensor], metadata: Mapping[str, str] | None = None
) -> tuple[int, Iterator[bytes]]:
    """Return the size in bytes of a safetensors file of these tensors, and the file piece by piece.

    The bytes are those that `safetensors` itself writes.
    """
    order = sorted(tensors, key=lambda name: (_ORDER[tensors[name].info.dtype], name))
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for name in order:
        info = tensors[name].info
        end = offset + _size(info)
        header[name] = {
            "dtype": info.dtype,
            "shape": list(info.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    head = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    head += b" " * (-len(head) % 8)

    def chunks() -> Iterator[bytes]:
        yield _LENGTH.pack(len(head)) + head
        for name in order:
            yield np.ascontiguousarray(tensors[name].make()).tobytes()

    return _LENGTH.size + len(head) + offset, chunks()


def write_safetensors(
    path: Path, tensors: Mapping[str, NewTensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file, one tensor after the other."""
    _, chunks = safetensors_chunks(tensors, metadata)
    write_chunks(path, chunks)


def write_chunks(path: Path, chunks: Iterable[bytes]) -> None:
    """Write a file from its pieces."""
    with path.open("wb") as file:
        for chunk in chunks:
            file.write(chunk)


def read_header(head: Callable[[int, int], bytes]) -> tuple[dict[str, Any], int]:
    """Return a sound file's header, and where the tensors begin; `head` gives the bytes from one
    offset to another.
    """
    (length,) = _LENGTH.unpack(head(0, _LENGTH.size))
    header: dict[str, Any] = json.loads(head(_LENGTH.size, _LENGTH.size + length))
    return header, _LENGTH.size + length


def _places(path: Path) -> Iterator[tuple[str, _Place]]:
    check_safetensors(path)
    with path.open("rb") as file:

        def piece(start: int, end: int) -> bytes:
            file.seek(start)
            return file.read(end - start)

        header, begin = read_header(piece)
    for name, entry in header.items():
        if name != "__metadata__":
            info = TensorInfo(entry["dtype"], tuple(entry["shape"]))
            yield name, _Place(info, path, begin + entry["data_offsets"][0])


def _size(info: TensorInfo) -> int:
    count = 1
    for length in info.shape:
        count *= length
    return count * ARRAYS[info.dtype].itemsize
