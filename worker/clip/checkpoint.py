"""CLIP checkpoints in and out: every reference to one `Clip`, and one `Clip` to open_clip's
local-dir layout.
"""

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import open_clip
import structlog
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from safetensors.torch import save_file
from torch import Tensor

from shared.errors import EffaceError, InvalidRequest, JobFailure
from shared.files.checkpoints import (
    CONFIG_NAME,
    SAFETENSORS,
    SAFETENSORS_NAME,
    WEIGHTS_SUFFIXES,
    Layout,
    Understood,
    find_layout,
    understood,
    weights_digest,
)
from shared.files.errors import shown, words
from shared.files.image_archives import file_sha256
from shared.files.tokenizer_files import TOWER_CONFIG
from shared.ports.object_storage import ObjectMissing, Storage
from shared.weights.tensor_files import TensorFiles, write_safetensors
from shared.weights.tensor_rules import Rule
from shared.weights.tensor_rules import tensors as made
from shared.weights.weight_names import MAX_SENTENCE, Infos
from worker.clip.model import Clip
from worker.clip.pickles import as_safetensors

log = structlog.get_logger()

WEIGHTS_NAME = SAFETENSORS_NAME


def load_clip(
    reference: str,
    *,
    scratch: Path,
    storage: Storage | None = None,
    device: torch.device | str = "cpu",
) -> Clip:
    """Return the model behind a reference, in float32 and eval mode.

    - `local-dir:<folder>`: a layout of `shared.files.checkpoints`: open_clip's, transformers'
      `CLIPModel`, or OpenAI's file alone. `open_clip_config.json` may give `architecture`, a name
      that open_clip knows, in place of `model_cfg`.
    - `storage:<prefix>`: the same as objects of `storage`; they are copied below `scratch`.
    - `open_clip:<architecture>/<tag>`, where a file may take the place of the tag, and
      `hf-hub:<repository>`: these download, unless open_clip's cache holds them.

    Raises:
        JobFailure: `invalid_checkpoint`, saying what is wrong with it.
    """
    kind, _, place = reference.partition(":")
    with _explained(reference):
        match kind:
            case "local-dir":
                clip = _from_folder(Path(place), scratch)
            case "storage" if storage is not None:
                clip = _from_folder(_fetch(storage, place, scratch / "model"), scratch)
            case "open_clip":
                architecture, _, tag = place.partition("/")
                clip = _from_tag(architecture, tag, scratch)
            case "hf-hub":
                clip = _from_hub(reference, scratch)
            case _:
                raise ValueError(
                    "the reference must begin with local-dir:, storage:, open_clip: or hf-hub:"
                )
        _try(clip)
    clip.model.to(device)
    return clip


def save_clip(clip: Clip, folder: Path) -> str:
    """Write the model in open_clip's local-dir layout and return the SHA-256 of the weights file.

    `open_clip.create_model("local-dir:<folder>")` loads the folder as it is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG_NAME).write_text(json.dumps(clip.config, indent=2))
    if hasattr(
        clip.tokenizer, "save_pretrained"
    ):  # a Hugging Face tokenizer is read from the folder, too
        clip.tokenizer.save_pretrained(str(folder))
    tower = getattr(getattr(clip.model, "text", None), "config", None)
    if tower is not None:  # so is the config of a Hugging Face text tower
        (folder / TOWER_CONFIG).write_text(tower.to_json_string(use_diff=False))
    return save_weights(clip.model, folder / WEIGHTS_NAME)


def save_weights(model: torch.nn.Module, path: Path) -> str:
    """Write a model's state as safetensors and return the SHA-256 of the file. The same weights
    give the same file.
    """
    save_file(plain_tensors(model.state_dict()), path)
    return file_sha256(path)


def plain_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors as safetensors wants them: on the CPU, in row-major order."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


class ReadFolder(NamedTuple):
    """A model's folder, understood."""

    layout: Layout
    config: dict[str, Any]
    """As in `open_clip_config.json`."""
    weights: Path
    """One safetensors file under open_clip's names: the folder's own, or one that was written to
    the scratch folder.
    """


def read_folder(folder: Path, scratch: Path) -> ReadFolder:
    """Find the model in a folder, and bring its weights into open_clip's layout.

    Raises:
        InvalidRequest: there is none, it is damaged, or config and weights do not fit each other.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    layout = find_layout(folder)
    understand = partial(understood, layout, known=_known_config)
    quick_gelu: bool | None = None
    files = list(layout.weights)
    if not layout.in_safetensors:
        files = []
        for number, path in enumerate(layout.weights):
            file, quick_gelu = as_safetensors(
                path, scratch / f"unpickled-{number}{SAFETENSORS}", _of_one(understand, layout)
            )
            files.append(file)
    tensors = TensorFiles(files)
    meant = understand(tensors.infos)
    for warning in meant.warnings:
        log.warning("checkpoint.warning", detail=warning.detail)
    if quick_gelu is not None and quick_gelu != bool(meant.config["model_cfg"].get("quick_gelu")):
        meant.config["model_cfg"]["quick_gelu"] = quick_gelu
        meant.config.pop("architecture", None)
    return ReadFolder(
        layout, meant.config, _converted(meant, tensors, files, scratch / f"converted{SAFETENSORS}")
    )


def _from_folder(folder: Path, scratch: Path) -> Clip:
    found = read_folder(folder, scratch)
    name = f"local-dir:{_arranged(found, scratch / 'layout')}"
    _check_size(name, found.weights)
    model = open_clip.create_model(name, require_pretrained=True)
    return _clip(model, found.config, name, weights_digest(found.layout.weights))


def _of_one(
    understand: Callable[[Infos], Understood], layout: Layout
) -> Callable[[Infos], Understood]:
    """Return what tells a model in one file; of shards each holds a part, which cannot be told."""
    if len(layout.weights) == 1:
        return understand
    return lambda _: Understood({}, "", None)


def _converted(meant: Understood, tensors: TensorFiles, files: list[Path], target: Path) -> Path:
    """Return the weights in one file under open_clip's names, which is written where they are
    not so already.
    """
    rules = meant.rules
    if rules is None:
        rules = {name: Rule((name,)) for name in tensors.infos}
    if (
        len(files) == 1
        and rules.keys() == tensors.infos.keys()
        and all(r.source == name for name, r in rules.items())
    ):
        return files[0]
    write_safetensors(target, made(rules, tensors.infos, tensors))
    return target


def _check_size(name: str, weights: Path) -> None:
    """Build the model without memory first: a config may describe one that no machine could
    hold.
    """
    with torch.device("meta"), _quiet():
        skeleton = open_clip.create_model(
            name, device="meta", load_weights=False, pretrained_image=False, pretrained_text=False
        )
    described = sum(parameter.numel() for parameter in skeleton.parameters())
    if described > weights.stat().st_size:  # no type has less than one byte
        raise ValueError(
            f"{CONFIG_NAME} describes {described} weights, but the weights file has "
            f"{weights.stat().st_size} bytes"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out open_clip's warning that a model has no weights: here it is meant to have none."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _try(clip: Clip) -> None:
    """Embed one image and one text, so that what cannot work is known before anything is built
    on it.
    """
    tensors = [tensor for tensor in clip.model.state_dict().values() if tensor.is_floating_point()]
    if not all(torch.isfinite(tensor).all() for tensor in tensors):
        raise ValueError("it holds weights that are not finite numbers")
    with torch.no_grad():
        image = clip.model.encode_image(torch.zeros(1, 3, clip.image_size, clip.image_size))  # type: ignore[operator]
        text = clip.model.encode_text(clip.tokenizer(["a"]))  # type: ignore[operator]
    if not (torch.isfinite(image).all() and torch.isfinite(text).all()):
        raise ValueError("its embeddings are not finite numbers")
    if image.shape != text.shape:
        raise ValueError(
            f"its embeddings have {image.shape[-1]} and {text.shape[-1]} entries, and cannot "
            "be "
            "compared"
        )


def _arranged(found: ReadFolder, place: Path) -> Path:
    """Link the files of a model below names that open_clip looks for, with the complete config
    beside them.
    """
    place.mkdir(parents=True)
    for file in found.layout.folder.iterdir():
        if file.is_file() and file.suffix not in WEIGHTS_SUFFIXES and file.name != CONFIG_NAME:
            (place / file.name).symlink_to(file.resolve())
    (place / WEIGHTS_NAME).symlink_to(found.weights.resolve())
    config = deepcopy(found.config)
    if config["model_cfg"]["text_cfg"].get("hf_model_name") and (place / TOWER_CONFIG).is_file():
        config["model_cfg"]["text_cfg"]["hf_model_name"] = str(
            place
        )  # the config is there, and no hub is asked
    (place / CONFIG_NAME).write_text(json.dumps(config))
    return place


def _from_tag(architecture: str, pretrained: str, scratch: Path) -> Clip:
    model_cfg = _known_config(architecture)
    tag = open_clip.get_pretrained_cfg(architecture, pretrained)
    # open_clip only warns where a tag was trained with another activation than its architecture
    # names.
    quick_gelu = (
        bool(tag.get("quick_gelu", False)) if tag else bool(model_cfg.get("quick_gelu", False))
    )
    model = open_clip.create_model(
        architecture,
        pretrained,
        force_quick_gelu=quick_gelu,
        require_pretrained=True,
    )
    config = {
        "architecture": architecture,
        "model_cfg": model_cfg | {"quick_gelu": quick_gelu},
        "preprocess_cfg": {
            name: model.visual.preprocess_cfg[name]
            for name in ("mean", "std", "interpolation", "resize_mode")
        },
    }
    return _clip(model, config, architecture, save_weights(model, scratch / "digest.safetensors"))


def _from_hub(reference: str, scratch: Path) -> Clip:
    path = open_clip.download_pretrained_from_hf(
        reference.removeprefix("hf-hub:"), filename=CONFIG_NAME
    )
    config = json.loads(Path(path).read_text())
    model = open_clip.create_model(reference, require_pretrained=True)
    return _clip(model, config, reference, save_weights(model, scratch / "digest.safetensors"))


def _clip(model: torch.nn.Module, config: dict[str, Any], name: str, digest: str) -> Clip:
    preprocess = PreprocessCfg(**model.visual.preprocess_cfg)  # type: ignore[arg-type, union-attr]
    height, width = (
        (preprocess.size, preprocess.size) if isinstance(preprocess.size, int) else preprocess.size
    )
    if height != width:
        raise ValueError(
            f"it takes images of {height} x {width} pixels, but only square ones are supported"
        )
    return Clip(
        model=model.float().eval(),
        tokenizer=open_clip.get_tokenizer(name),
        transform=image_transform_v2(preprocess, is_train=False),
        mean=tuple(preprocess.mean),
        std=tuple(preprocess.std),
        image_size=height,
        architecture=architecture_name(config),
        config=config,
        digest=digest,
    )


def architecture_name(config: Mapping[str, Any]) -> str:
    """Return the name that the config gives, or one that says what it describes, e.g.
    `ViT-10x256-p32-224`.
    """
    if "architecture" in config:
        return str(config["architecture"])
    vision = config["model_cfg"]["vision_cfg"]
    size = vision.get("image_size", 224)
    if vision.get("timm_model_name"):
        return f"{vision['timm_model_name']}-{size}"
    layers = vision.get("layers", 12)
    if isinstance(layers, list | tuple):
        return f"RN-{'.'.join(map(str, layers))}-w{vision.get('width', 64)}-{size}"
    return f"ViT-{layers}x{vision.get('width', 768)}-p{vision.get('patch_size', 16)}-{size}"


def _known_config(architecture: str) -> dict[str, Any]:
    # `get_model_config` also takes places, as in hf-hub:owner/name, and would go there.
    config = (
        open_clip.get_model_config(architecture)
        if architecture in open_clip.list_models()
        else None
    )
    if config is None:
        raise ValueError(
            f"open_clip knows no architecture {architecture!r}; see open_clip.list_models()"
        )
    return deepcopy(config)


def _fetch(storage: Storage, prefix: str, folder: Path) -> Path:
    objects = storage.list(prefix)
    if not objects:
        raise ObjectMissing(prefix)
    for found in objects:
        storage.download(found.key, folder / Path(found.key).name)
    return folder


@contextmanager
def _explained(reference: str) -> Iterator[None]:
    """Turn what open_clip, torch and safetensors raise on a bad checkpoint into one sentence."""
    try:
        yield
    except EffaceError as error:
        if not isinstance(error, InvalidRequest):
            raise
        raise JobFailure(
            "invalid_checkpoint", _sentence(reference, error.errors[0].detail)
        ) from error
    except (
        Exception
    ) as error:  # open_clip, timm, transformers and torch raise whatever a bad file leads them to
        raise JobFailure("invalid_checkpoint", _sentence(reference, words(error))) from error


def _sentence(reference: str, said: str) -> str:
    """Say what is wrong without the place in the storage, and without cutting a word in two."""
    kind, _, place = reference.partition(":")
    called = (
        "the uploaded checkpoint"
        if kind == "storage"
        else shown(f"{kind}:{Path(place).name}" if kind == "local-dir" else reference)
    )
    text = f"{called[0].upper()}{called[1:]} cannot be loaded: {said}".rstrip(".")
    if len(text) > MAX_SENTENCE:
        text = text[: text.rindex(" ", 0, MAX_SENTENCE)].rstrip(",;:(") + " ..."
    return text if text.endswith("...") else f"{text}."
