"""Checkpoints as they are uploaded, checked and laid out as open_clip's local-dir layout. Nothing is unpickled."""

import json
from dataclasses import dataclass
from pathlib import Path

from shared.checkpoints import (
    CONFIG_NAME,
    MAX_CONFIG_BYTES,
    PICKLE_NAME,
    SAFETENSORS_NAME,
    check_safetensors,
    is_torch_file,
    read_config,
)
from shared.errors import InvalidRequest
from shared.layouts import invalid
from shared.members import MemberLimits, is_archive, members
from shared.settings import MIB
from shared.tokenizer_files import TOKENIZER_NAMES

NAMES = frozenset({*TOKENIZER_NAMES, CONFIG_NAME, SAFETENSORS_NAME, PICKLE_NAME})
"""What is taken from an archive, by its last name alone, so that no path can leave."""
EXPANSION = 20
"""Weights hardly compress; an archive that unpacks to more times its size is taken for a bomb."""
MEMBER_LIMITS = MemberLimits(members=1000, expanded_bytes=64 * 1024 * MIB, ratio=EXPANSION)


@dataclass(frozen=True, slots=True)
class CheckpointFiles:
    """What an upload was found to be."""

    unpacked: list[str]
    """Names in open_clip's local-dir layout that lie in the scratch folder."""
    itself: str | None
    """The name there of the upload itself; None where it is an archive."""
    architecture: str


def unpack_checkpoint(path: Path, filename: str, architecture: str | None, scratch: Path) -> CheckpointFiles:
    """Check an uploaded checkpoint, and put into `scratch` what is not the upload itself.

    `path` is a zip or tar of a local-dir folder, a `.safetensors`, or a zip-format torch file, as `filename` ends; the
    last two need the name of an `architecture`.

    Raises:
        InvalidRequest: it is none of these, or damaged. The pointer is empty where the file is meant.
    """
    torch_file = is_torch_file(path)
    itself: str | None = None
    if not torch_file and is_archive(path):
        files = _unpacked(path, scratch)
    elif torch_file or filename.endswith(".safetensors"):
        if architecture is None:
            raise InvalidRequest.at(
                "/architecture", "a bare checkpoint needs the architecture that open_clip knows it by"
            )
        itself = PICKLE_NAME if torch_file else SAFETENSORS_NAME
        files = {CONFIG_NAME: scratch / CONFIG_NAME, itself: path}
        files[CONFIG_NAME].write_text(json.dumps({"architecture": architecture}))
    else:
        raise invalid("is neither .safetensors, nor a torch file (zip format), nor a zip or tar of a local-dir folder")
    if SAFETENSORS_NAME in files:
        check_safetensors(files[SAFETENSORS_NAME])
    elif not is_torch_file(files[PICKLE_NAME]):
        raise invalid(f"{PICKLE_NAME} is not a torch file in zip format, as torch.save writes it since 1.6")
    config, _ = read_config(files[CONFIG_NAME])
    return CheckpointFiles(sorted(set(files) - {itself}), itself, architecture or config.name())


def _unpacked(path: Path, scratch: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for member in members(path, MEMBER_LIMITS):
        name = member.name.name
        if name not in NAMES:
            continue
        if name in files:
            raise invalid(f"the archive holds {name} twice; pack the folder of one model")
        if name == CONFIG_NAME and member.size > MAX_CONFIG_BYTES:
            raise invalid(f"{name} has {member.size} bytes; at most {MAX_CONFIG_BYTES} are taken")
        files[name] = scratch / name
        member.copy(files[name])
    if CONFIG_NAME not in files:
        raise invalid(f"the archive holds no {CONFIG_NAME}; pack a folder in open_clip's local-dir layout")
    if SAFETENSORS_NAME not in files and PICKLE_NAME not in files:
        raise invalid(f"the archive holds no weights; add {SAFETENSORS_NAME}")
    return files
