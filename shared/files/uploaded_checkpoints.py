"""Checkpoints as they are uploaded, checked and laid out as one model's folder. Nothing is
unpickled.
"""

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from shared.errors import InvalidRequest
from shared.files.archive_members import Member, MemberLimits, is_archive, members
from shared.files.checkpoints import (
    CONFIG_NAME,
    INDEX_SUFFIXES,
    MAX_CONFIG_BYTES,
    MAX_INDEX_BYTES,
    OPENAI,
    PICKLE_NAME,
    SAFETENSORS,
    SAFETENSORS_NAME,
    Layout,
    find_layout,
    is_torch_file,
    is_torchscript,
    is_weights,
    understood,
)
from shared.files.errors import invalid
from shared.files.tokenizer_files import TOKENIZER_NAMES, TOWER_CONFIG
from shared.schemas.resolution import RequestWarning
from shared.settings import MIB
from shared.weights.architectures import nearest
from shared.weights.tensor_files import TensorFiles
from shared.weights.transformers_layout import CONFIG as TRANSFORMERS_CONFIG
from shared.weights.transformers_layout import PROCESSOR
from shared.weights.weight_names import listed

EXPANSION = 20
"""Weights hardly compress; an archive that unpacks to more times its size is taken for a bomb."""
MEMBER_LIMITS = MemberLimits(members=1000, expanded_bytes=64 * 1024 * MIB, ratio=EXPANSION)
CONFIGS = (CONFIG_NAME, TRANSFORMERS_CONFIG)
SMALL = {
    **dict.fromkeys((*CONFIGS, PROCESSOR), MAX_CONFIG_BYTES),
    **dict.fromkeys(INDEX_SUFFIXES, MAX_INDEX_BYTES),
}
"""Bytes that files of a name, or of an end, may have."""
TREE = "unpacked"
"""Where members are put until it is known which of them are the model's."""

NAMES = frozenset({*TOKENIZER_NAMES, *CONFIGS, PROCESSOR, SAFETENSORS_NAME, PICKLE_NAME})
_SHARD_NAME = re.compile(r"model-\d{5}-of-\d{5}\.(safetensors|bin)")
OPENAI_FILES = {
    **{name: f"{name}-quickgelu" for name in ("RN50", "RN101", "RN50x4", "RN50x16", "RN50x64")},
    **{name: f"{name}-quickgelu" for name in ("ViT-B-32", "ViT-B-16", "ViT-L-14")},
    "ViT-L-14-336px": "ViT-L-14-336-quickgelu",
}
"""Names of OpenAI's own files, without their ends, and open_clip's names of those models."""


@dataclass(frozen=True, slots=True)
class CheckpointFiles:
    """What an upload was found to be."""

    unpacked: list[str]
    """Names of files in the scratch folder, which are those of a model's folder."""
    itself: str | None
    """The name there of the upload itself; None where it is an archive."""
    weights: list[str]
    """Which of them hold the weights, in the order in which they are read."""
    architecture: str
    warnings: list[dict[str, str]]
    """Each one a `RequestWarning`."""


def is_model_file(name: str) -> bool:
    """True for every name that `CheckpointFiles` can give."""
    return name in NAMES or _SHARD_NAME.fullmatch(name) is not None


def unpack_checkpoint(
    path: Path, filename: str, architecture: str | None, scratch: Path
) -> CheckpointFiles:
    """Check an uploaded checkpoint, and put into `scratch` what is not the upload itself.

    `path` is a zip or tar of a folder in one of the layouts of `shared.files.checkpoints`, a
    `.safetensors`, or a zip-format torch file, as `filename` ends; the last two need the name of an
    `architecture`, except for OpenAI's TorchScript archives.

    Raises:
        InvalidRequest: it is none of these, damaged, or config and weights do not fit each other.
            The pointer is empty where the file is meant.
    """
    torch_file = is_torch_file(path)
    if not torch_file and is_archive(path):
        return _result(Layout(scratch, *_unpacked(path, scratch)), None, architecture)
    if not torch_file and not filename.endswith(SAFETENSORS):
        raise invalid(
            "is neither .safetensors, nor a torch file (zip format), nor a zip or tar of a "
            "model's folder;"
            " a torch file of before version 1.6 is saved again with torch.save"
        )
    itself = PICKLE_NAME if torch_file else SAFETENSORS_NAME
    if (
        architecture is None and torch_file and is_torchscript(path)
    ):  # its tensors tell the worker what it is
        architecture = OPENAI_FILES.get(PurePosixPath(filename).stem)
        return CheckpointFiles([], itself, [itself], architecture or OPENAI, [])
    if architecture is None:
        raise InvalidRequest.at(
            "/architecture", "a bare checkpoint needs the architecture that open_clip knows it by"
        )
    (scratch / CONFIG_NAME).write_text(json.dumps({"architecture": architecture}))
    return _result(Layout(scratch, scratch / CONFIG_NAME, (path,)), itself, architecture)


def _result(layout: Layout, itself: str | None, architecture: str | None) -> CheckpointFiles:
    """Check config against weights, and say what is there."""
    in_safetensors = layout.in_safetensors if itself is None else itself == SAFETENSORS_NAME
    if not in_safetensors:
        for path in layout.weights:
            if not is_torch_file(path):
                raise invalid(
                    f"{path.name} is not a torch file in zip format, as torch.save writes it "
                    "since "
                    "1.6"
                )
    found = understood(layout, TensorFiles(layout.weights).infos if in_safetensors else None)
    _check_text_tower(layout, found.config)
    warnings = list(found.warnings)
    name = architecture or found.architecture
    if itself is not None and not in_safetensors and is_torchscript(layout.weights[0]):
        warnings = []  # its code tells the activation
    if found.rules is None and in_safetensors:
        warnings.append(_unknown(name))
    present = {
        file.name for file in layout.folder.iterdir() if file.is_file() and is_model_file(file.name)
    }
    return CheckpointFiles(
        unpacked=sorted({CONFIG_NAME} if itself else present),
        itself=itself,
        weights=[itself] if itself else [file.name for file in layout.weights],
        architecture=name,
        warnings=[warning.model_dump() for warning in warnings],
    )


def _check_text_tower(layout: Layout, config: dict[str, Any]) -> None:
    tower = config.get("model_cfg", {}).get("text_cfg", {}).get("hf_model_name")
    if tower and not (layout.folder / TOWER_CONFIG).is_file():
        raise invalid(
            f"its text tower is that of {tower} (text_cfg.hf_model_name), whose config is missing;"
            f" give a folder with that model's {TOWER_CONFIG} beside the weights"
        )


def _unknown(architecture: str) -> RequestWarning:
    near = nearest(architecture)
    detail = (
        f"open_clip has no architecture {architecture!r} that is known here, so that the "
        "weights were not compared with it"
    )
    return RequestWarning(
        pointer="/architecture", detail=detail + (f"; near are {', '.join(near)}" if near else "")
    )


def _unpacked(path: Path, scratch: Path) -> tuple[Path | None, tuple[Path, ...]]:
    """Put the files of the one model in an archive into `scratch`, and return its config and its
    weights there.
    """
    tree = scratch / TREE
    for member in members(path, MEMBER_LIMITS):
        if _is_wanted(member):
            target = tree / member.name
            target.parent.mkdir(parents=True, exist_ok=True)
            member.copy(target)
    tree.mkdir(exist_ok=True)
    layout = find_layout(_model_folder(tree))
    moved = dict(_names(layout))
    for old, new in moved.items():
        old.rename(scratch / new)
    shutil.rmtree(tree)
    return layout.config and scratch / moved[layout.config], tuple(
        scratch / moved[old] for old in layout.weights
    )


def _is_wanted(member: Member) -> bool:
    """True for a file that may be a model's; a small one must be small.

    Raises:
        InvalidRequest: it is not.
    """
    name = member.name.name
    limit = next(
        (
            limit
            for end, limit in SMALL.items()
            if name == end or (end[0] == "." and name.endswith(end))
        ),
        None,
    )
    if limit is not None and member.size > limit:
        raise invalid(f"{name} has {member.size} bytes; at most {limit} are taken")
    return limit is not None or name in TOKENIZER_NAMES or is_weights(name)


def _model_folder(tree: Path) -> Path:
    """Return the folder in which to look for the model.

    Raises:
        InvalidRequest: there are several.
    """
    for name in CONFIGS:
        places = sorted({file.parent for file in tree.rglob(name)})
        if (
            len(places) > 1 and name == TRANSFORMERS_CONFIG
        ):  # sentence-transformers has one for each of its modules
            places = [place for place in places if _has_clip(place / name)] or places
        if len(places) > 1:
            where = listed([str(place.relative_to(tree)) for place in places], 100)
            raise invalid(
                f"the archive holds {name} twice, in {where}; pack the folder of one model"
            )
        if places:
            return places[0]
    raise invalid(
        f"the archive holds no {CONFIG_NAME}, nor a {TRANSFORMERS_CONFIG} of transformers; pack a "
        "folder in open_clip's"
        " local-dir layout, or a CLIPModel's"
    )


def _has_clip(config: Path) -> bool:
    try:
        return bool(json.loads(config.read_bytes()).get("model_type") == "clip")
    except (ValueError, RecursionError, AttributeError):
        return False


def _names(layout: Layout) -> Iterator[tuple[Path, str]]:
    """Yield the files of a model, each with the one name that it has in the storage."""
    many = len(layout.weights) > 1
    numbers = {file: number for number, file in enumerate(layout.weights, 1)}
    for file in layout.files:
        if file not in numbers:
            if not file.name.endswith(INDEX_SUFFIXES):  # the shards' new names tell as much
                yield file, file.name
        elif many:
            yield file, f"model-{numbers[file]:05}-of-{len(numbers):05}{file.suffix}"
        else:
            yield file, SAFETENSORS_NAME if file.suffix == SAFETENSORS else PICKLE_NAME
