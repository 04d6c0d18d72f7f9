"""Folders of checkpoints, understood without torch: which files are the model's, and how its
tensors become open_clip's.

Two layouts are taken: open_clip's local-dir (`open_clip_config.json` and weights under any name
that open_clip takes), and transformers' `CLIPModel` (`config.json` and weights), also one folder
below, where sentence-transformers has it."""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import ValidationError

from shared.files.archive_members import is_zip, zip_parts
from shared.files.errors import invalid, shown, words
from shared.files.tokenizer_files import TOKENIZER_NAMES, TOWER_CONFIG
from shared.ports.object_storage import chunks_of, hashed
from shared.schemas.clip_config import MAX_PATCHES, ClipConfig, ModelConfig
from shared.schemas.resolution import RequestWarning
from shared.schemas.validation_errors import invalid_request
from shared.weights.architectures import known_config, quick_gelu_twin
from shared.weights.clip_shapes import Expected, expected_tensors, openai_config
from shared.weights.tensor_files import TensorInfo
from shared.weights.tensor_rules import Rule
from shared.weights.transformers_layout import CONFIG as TRANSFORMERS_CONFIG
from shared.weights.transformers_layout import (
    PROCESSOR,
    open_clip_config,
    own_vocabulary,
    parse_json,
    read_transformers_config,
    rules_from_transformers,
)
from shared.weights.weight_names import fitted, listed

CONFIG_NAME = "open_clip_config.json"
SAFETENSORS_NAME = "open_clip_model.safetensors"
PICKLE_NAME = "open_clip_pytorch_model.bin"
MAX_CONFIG_BYTES = 1024 * 1024
MAX_INDEX_BYTES = 16 * MAX_CONFIG_BYTES

SAFETENSORS = ".safetensors"
WEIGHTS_SUFFIXES = (SAFETENSORS, ".bin", ".pt", ".pth")
"""Of weights files; all but the first are pickles."""
INDEX_SUFFIXES = (".safetensors.index.json", ".bin.index.json")
_OPEN_CLIP = ("open_clip_model", "open_clip_pytorch_model")
_TRANSFORMERS = ("model", "pytorch_model")
"""Names of weights files, without their ends, that each of the two layouts has."""
OPENAI = "CLIP (OpenAI)"
"""What a model is called whose tensors nobody has looked at yet."""
_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.(safetensors|bin)")
_NO_WEIGHTS = re.compile(
    r"(optimizer|optim|scheduler|scaler|rng_state|random_states|training_args|trainer_state)",
    re.IGNORECASE,
)
"""Files that training leaves beside the weights."""

Known = Callable[[str], dict[str, Any] | None]
"""Gives the `model_cfg` of an architecture by its name."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The files of one model."""

    folder: Path
    config: Path | None
    """None for a torch file alone, as OpenAI gives them: its tensors tell what it is."""
    weights: tuple[Path, ...]
    """One file, or shards in the order of their names."""

    @property
    def is_transformers(self) -> bool:
        """Whether it is a `CLIPModel`'s."""
        return self.config is not None and self.config.name == TRANSFORMERS_CONFIG

    @property
    def in_safetensors(self) -> bool:
        """Whether the weights have headers that can be read without a pickle."""
        return all(path.suffix == SAFETENSORS for path in self.weights)

    @property
    def files(self) -> list[Path]:
        """All of them, with a tokenizer's and what says how images are prepared."""
        names = (
            *sorted(TOKENIZER_NAMES),
            PROCESSOR,
            *(() if self.is_transformers else (TOWER_CONFIG,)),
        )
        beside = [self.folder / name for name in names]
        own = [self.config] if self.config is not None else []
        if len(self.weights) > 1:
            own += sorted(
                path for suffix in INDEX_SUFFIXES for path in self.folder.glob(f"*{suffix}")
            )
        return [*own, *self.weights, *(path for path in beside if path.is_file())]

    @property
    def has_tokenizer(self) -> bool:
        """Whether a tokenizer's files lie beside the weights."""
        return any((self.folder / name).is_file() for name in TOKENIZER_NAMES)


@dataclass(frozen=True, slots=True)
class Understood:
    """What a checkpoint is."""

    config: dict[str, Any]
    """As in `open_clip_config.json`; with `architecture` alone where only open_clip could know
    it.
    """
    architecture: str
    rules: dict[str, Rule] | None
    """How its tensors are made; None where their names were not looked at."""
    warnings: tuple[RequestWarning, ...] = field(default=())


def find_layout(folder: Path) -> Layout:
    """Return the files of the one model in a folder, or one folder below.

    Raises:
        InvalidRequest: there is none, or several files could be its weights: none of them is taken
            silently.
    """
    places = [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]
    for name in (CONFIG_NAME, TRANSFORMERS_CONFIG):
        found = [place for place in places if (place / name).is_file()]
        if folder in found:
            found = [folder]
        if len(found) > 1:
            found = [place for place in found if _is_clip(place / name)] or found
        if len(found) > 1:
            raise invalid(
                f"there is a {name} in {listed([p.name for p in found], 150)}; give the folder "
                "of "
                "one model"
            )
        if found:
            return Layout(
                found[0],
                found[0] / name,
                weights_files(found[0], transformers=name == TRANSFORMERS_CONFIG),
            )
    weights = weights_files(folder)
    if len(weights) == 1 and weights[0].suffix != SAFETENSORS:
        return Layout(folder, None, weights)
    raise invalid(
        f"holds no {CONFIG_NAME}, nor a {TRANSFORMERS_CONFIG} of transformers; give a folder in "
        "open_clip's local-dir"
        " layout, or a CLIPModel's"
    )


def weights_files(folder: Path, *, transformers: bool = False) -> tuple[Path, ...]:
    """Return the weights of the model in a folder: one file, or all shards.

    The names that both layouts know come first, and safetensors before pickles: they are forms of
    one model. A file under any other name is taken if it is the only one.

    Raises:
        InvalidRequest: there is none, one of several would have to be chosen, or a shard is
            missing.
    """
    names = sorted(
        path.name for path in folder.iterdir() if path.is_file() and is_weights(path.name)
    )
    if not names:
        raise invalid(
            f"holds no weights; add {SAFETENSORS_NAME} (or a file that ends in "
            f"{', '.join(WEIGHTS_SUFFIXES)})"
        )
    sets = _sharded(folder, names)
    shards = {name for files in sets.values() for name in files}
    sets |= {name: (name,) for name in names if name not in shards}
    chosen = _chosen(
        list(sets), (_TRANSFORMERS, _OPEN_CLIP) if transformers else (_OPEN_CLIP, _TRANSFORMERS)
    )
    return tuple(folder / name for name in sets[chosen])


def is_weights(name: str) -> bool:
    """True for the names of files that may hold weights."""
    return name.endswith(WEIGHTS_SUFFIXES) and not _NO_WEIGHTS.match(name)


def weights_digest(paths: Iterable[Path]) -> str:
    """Return the SHA-256 of a model's weights as they lie there: of the file, or of all shards
    one after the other.
    """
    digest = hashlib.sha256()
    for path in paths:
        for _ in hashed(chunks_of(path), digest):
            pass
    return digest.hexdigest()


def understood(
    layout: Layout, infos: Mapping[str, TensorInfo] | None, known: Known = known_config
) -> Understood:
    """Return what the model of a folder is, and how its tensors become open_clip's.

    Args:
        layout: its files.
        infos: the headers of its tensors; None where they lie in a pickle that is not opened.
        known: gives the configs of architectures that `open_clip_config.json` may name.

    Raises:
        InvalidRequest: config and weights do not fit each other; the detail is one sentence.
    """
    if layout.config is None:
        return _understood_alone(infos)
    if layout.is_transformers:
        return _understood_transformers(layout.config, layout, infos)
    config, content = read_config(layout.config)
    model = config.model_cfg
    if model is None and (described := known(str(config.architecture))) is not None:
        content["model_cfg"] = described
        model = ModelConfig.model_validate(described)
    if model is None:
        return Understood(content, config.name(), None)
    _check_tokenizer(layout, model)
    if infos is None:
        return Understood(content, config.name(), None, _activation_warnings(config, openai=False))
    called = (
        config.architecture if config.model_cfg is None and config.architecture else CONFIG_NAME
    )
    fit = fitted(
        infos, expected_tensors(model), called, _expected if called != CONFIG_NAME else None
    )
    if fit.openai and not content["model_cfg"].get("quick_gelu"):
        content["model_cfg"]["quick_gelu"] = True
        content.pop("architecture", None)
    warnings = (
        *_activation_warnings(config, openai=fit.openai),
        *_left_out(fit.left_out, fit.prefix),
    )
    return Understood(content, config.name(), fit.rules, warnings)


def read_config(path: Path) -> tuple[ClipConfig, dict[str, Any]]:
    """Return `open_clip_config.json`, as a schema and as it stands in the file.

    Raises:
        InvalidRequest: it is no JSON, or one of its fields is unknown, of another type or out of
            range.
    """
    content = _json(path)
    try:
        config = ClipConfig.model_validate(content)
    except ValidationError as error:
        first = invalid_request(error, content).errors[0]
        raise invalid(f"{CONFIG_NAME}: {shown(first.pointer or '/')} {first.detail}") from error
    if config.architecture is None and config.model_cfg is None:
        raise invalid(f"{CONFIG_NAME} needs model_cfg, or the name of an architecture")
    if config.model_cfg is not None and config.model_cfg.vision_cfg.patches() > MAX_PATCHES:
        raise invalid(f"{CONFIG_NAME} cuts an image into more than {MAX_PATCHES} patches")
    return config, content


def is_torch_file(path: Path) -> bool:
    """True for what `torch.save` writes since version 1.6: a zip with a pickle in it, which is not
    opened here.

    Raises:
        InvalidRequest: it is a zip, but a damaged one, or one of a torch file whose parts are
            compressed.
    """
    parts = zip_parts(path) if is_zip(path) else []
    if not any(PurePosixPath(part.filename).name == "data.pkl" for part in parts):
        return False
    stored = [part for part in parts if "code" not in PurePosixPath(part.filename).parts[1:-1]]
    if any(part.compress_type != 0 or part.file_size > path.stat().st_size for part in stored):
        raise invalid(
            f"{shown(path.name)} holds compressed parts, as torch.save never writes them; give "
            "safetensors"
        )
    return True


def is_torchscript(path: Path) -> bool:
    """True for a TorchScript archive, which holds code beside its tensors, as OpenAI's own files
    do.
    """
    names = [PurePosixPath(part.filename) for part in zip_parts(path)] if is_zip(path) else []
    return any(name.name == "constants.pkl" for name in names) and any(
        "code" in name.parts[1:-1] for name in names
    )


def _understood_alone(infos: Mapping[str, TensorInfo] | None) -> Understood:
    """Understand a file of OpenAI's layout, which has no config."""
    if infos is None:
        return Understood({}, OPENAI, None)
    content = {"model_cfg": openai_config(infos)}
    config = ClipConfig.model_validate(content)
    assert config.model_cfg is not None  # noqa: S101 - made above
    return Understood(
        content,
        config.name(),
        fitted(infos, expected_tensors(config.model_cfg), "OpenAI's layout").rules,
    )


def _understood_transformers(
    path: Path, layout: Layout, infos: Mapping[str, TensorInfo] | None
) -> Understood:
    config = read_transformers_config(_json(path))
    own = own_vocabulary(config)
    if own and not layout.has_tokenizer:
        raise invalid(
            f"{TRANSFORMERS_CONFIG}: the vocabulary of {config.text_config.vocab_size} is not that "
            "of OpenAI's CLIP;"
            " add the files of its tokenizer, e.g. tokenizer.json"
        )
    processor = layout.folder / PROCESSOR
    content = open_clip_config(
        config, _json(processor) if processor.is_file() else {}, own_tokenizer=own
    )
    model = ModelConfig.model_validate(content["model_cfg"])
    name = ClipConfig(model_cfg=model).name()
    if model.vision_cfg.patches() > MAX_PATCHES:
        raise invalid(f"{TRANSFORMERS_CONFIG} cuts an image into more than {MAX_PATCHES} patches")
    if infos is None:
        return Understood(content, name, None)
    return Understood(content, name, rules_from_transformers(expected_tensors(model), infos))


def _expected(name: str) -> Expected | None:
    config = known_config(name)
    return None if config is None else expected_tensors(ModelConfig.model_validate(config))


def _check_tokenizer(layout: Layout, model: ModelConfig) -> None:
    name = model.text_cfg.hf_tokenizer_name
    if name and not layout.has_tokenizer:
        raise invalid(
            f"its tokenizer is that of {name} (text_cfg.hf_tokenizer_name), whose files are "
            "missing;"
            " give a folder with tokenizer.json (or what the tokenizer has) beside the weights"
        )


def _activation_warnings(config: ClipConfig, *, openai: bool) -> tuple[RequestWarning, ...]:
    """Say where a name alone decides between two activations, between which no weight tells."""
    twin = quick_gelu_twin(config.architecture or "") if config.model_cfg is None else None
    if twin is None:
        return ()
    if openai:
        detail = f"the file is OpenAI's, so that it is loaded as {twin}"
        return (RequestWarning(pointer="/architecture", detail=detail),)
    detail = (
        f"weights do not tell their activation: {config.architecture} has GELU; if these were "
        "trained with QuickGELU, as those"
        f" of OpenAI, MetaCLIP and DFN, give {twin}"
    )
    return (RequestWarning(pointer="/architecture", detail=detail),)


def _left_out(names: Sequence[str], prefix: str) -> tuple[RequestWarning, ...]:
    if not names:
        return ()
    detail = (
        f"the model lies below {shown(prefix)}; {len(names)} tensors beside it are left out "
        f"({listed(names, 100)})"
    )
    return (RequestWarning(pointer="/file", detail=detail),)


def _sharded(folder: Path, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return sets of shards, by the name that the whole file would have: as an index lists them,
    or by their own names.
    """
    found: dict[str, tuple[str, ...]] = {}
    for suffix in INDEX_SUFFIXES:
        for index in sorted(folder.glob(f"*{suffix}")):
            whole = index.name.removesuffix(".index.json")
            shards = _indexed(index)
            if missing := [name for name in shards if name not in names]:
                raise invalid(
                    f"{index.name} lists {listed(missing, 150)}, which the folder lacks; give "
                    "all "
                    "shards"
                )
            found[whole] = shards
    for name in names:
        match = _SHARD.fullmatch(name)
        whole = f"{match[1]}.{match[4]}" if match else ""
        if match and whole not in found:
            found[whole] = _numbered(match, names)
    return found


def _numbered(match: re.Match[str], names: Sequence[str]) -> tuple[str, ...]:
    """Return all shards of a set, of which one's name is given."""
    count = int(match[3])
    own = [
        name
        for name in names
        if name.startswith(f"{match[1]}-") and name.endswith(f"-of-{match[3]}.{match[4]}")
    ]
    if len(own) != count or own != [
        f"{match[1]}-{n:05}-of-{match[3]}.{match[4]}" for n in range(1, count + 1)
    ]:
        raise invalid(
            f"{match[0]} is one of {count} shards, of which the folder holds {len(own)}; give "
            "all "
            "of them"
        )
    return tuple(own)


def _indexed(index: Path) -> tuple[str, ...]:
    if index.stat().st_size > MAX_INDEX_BYTES:
        raise invalid(f"{index.name} has more than {MAX_INDEX_BYTES} bytes")
    places = parse_json(index.read_bytes(), index.name).get("weight_map")
    if (
        not isinstance(places, dict)
        or not places
        or not all(isinstance(name, str) for name in places.values())
    ):
        raise invalid(f"{index.name} has no weight_map of tensors to files")
    shards = tuple(sorted(set(places.values())))
    if not all(is_weights(name) and PurePosixPath(name).name == name for name in shards):
        raise invalid(f"{index.name} names files that are no weights beside it")
    return shards


def _chosen(names: list[str], families: tuple[tuple[str, ...], ...]) -> str:
    """Return the one of several weights files that is meant.

    Raises:
        InvalidRequest: that cannot be told.
    """
    if len(names) == 1:
        return names[0]
    stems = {name: name.rpartition(".")[0] for name in names}
    known = [name for family in families for name in names if stems[name] in family]
    family = next((f for f in families if any(stems[name] in f for name in names)), ())
    own = [name for name in names if stems[name] in family]
    for suffix in WEIGHTS_SUFFIXES:
        of_kind = [name for name in own if name.endswith(suffix)]
        if len(of_kind) == 1 and len(known) == len(names):
            return of_kind[0]
        if of_kind:
            break
    raise invalid(f"holds several weights files, {listed(names, 180)}; keep the one that is meant")


def _is_clip(path: Path) -> bool:
    try:
        return bool(json.loads(path.read_bytes()).get("model_type") == "clip")
    except (ValueError, RecursionError, AttributeError):
        return False


def _json(path: Path) -> Any:  # noqa: ANN401 - a schema looks at it next
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise invalid(f"{path.name} has more than {MAX_CONFIG_BYTES} bytes")
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise invalid(f"{path.name} is not JSON: {words(error)}") from error
    if path.name != CONFIG_NAME and not isinstance(content, dict):
        raise invalid(f"{path.name} must be an object")
    return content
