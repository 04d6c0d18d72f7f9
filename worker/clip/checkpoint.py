"""CLIP checkpoints in and out: every reference to one `Clip`, and one `Clip` to open_clip's local-dir layout."""

import json
import logging
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from safetensors.torch import save_file
from torch import Tensor

from shared.archives import file_sha256
from shared.checkpoints import CONFIG_NAME, PICKLE_NAME, SAFETENSORS_NAME, check_safetensors, read_config
from shared.errors import EffaceError, InvalidRequest, JobFailure
from shared.members import words
from shared.storage import ObjectMissing, Storage
from worker.clip.model import Clip

WEIGHTS_NAME = SAFETENSORS_NAME
WEIGHTS_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")
"""Of weights files, the best first; all but the first are pickles and read with `weights_only`."""


def load_clip(
    reference: str,
    *,
    scratch: Path,
    storage: Storage | None = None,
    device: torch.device | str = "cpu",
) -> Clip:
    """Return the model behind a reference, in float32 and eval mode.

    - `local-dir:<folder>`: `open_clip_config.json` and a weights file. A config may give `architecture`, a name that
      open_clip knows, in place of `model_cfg`.
    - `storage:<prefix>`: the same as objects of `storage`; they are copied below `scratch`.
    - `open_clip:<architecture>/<tag>`, where a file may take the place of the tag, and `hf-hub:<repository>`: these
      download, unless open_clip's cache holds them.

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
                raise ValueError("the reference must begin with local-dir:, storage:, open_clip: or hf-hub:")
        _try(clip)
    clip.model.to(device)
    return clip


def save_clip(clip: Clip, folder: Path) -> str:
    """Write the model in open_clip's local-dir layout and return the SHA-256 of the weights file.

    `open_clip.create_model("local-dir:<folder>")` loads the folder as it is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG_NAME).write_text(json.dumps(clip.config, indent=2))
    if hasattr(clip.tokenizer, "save_pretrained"):  # a Hugging Face tokenizer is read from the folder, too
        clip.tokenizer.save_pretrained(str(folder))
    return save_weights(clip.model, folder / WEIGHTS_NAME)


def save_weights(model: torch.nn.Module, path: Path) -> str:
    """Write a model's state as safetensors and return the SHA-256 of the file. The same weights give the same file."""
    save_file(plain_tensors(model.state_dict()), path)
    return file_sha256(path)


def plain_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors as safetensors wants them: on the CPU, in row-major order."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _from_folder(folder: Path, scratch: Path) -> Clip:
    path, weights = folder / CONFIG_NAME, _weights_file(folder)
    if not path.is_file():
        raise FileNotFoundError(f"there is no {CONFIG_NAME} in {folder.name}")
    _, config = read_config(path)
    if weights.suffix == ".safetensors":
        check_safetensors(weights)
    if "model_cfg" not in config:
        config["model_cfg"] = _known_config(config["architecture"])
    name = f"local-dir:{_arranged(folder, config, weights, scratch / 'layout')}"
    _check_size(name, weights)
    return _clip(open_clip.create_model(name, require_pretrained=True), config, name, file_sha256(weights))


def _check_size(name: str, weights: Path) -> None:
    """Build the model without memory first: a config may describe one that no machine could hold."""
    with torch.device("meta"), _quiet():
        skeleton = open_clip.create_model(
            name, device="meta", load_weights=False, pretrained_image=False, pretrained_text=False
        )
    described = sum(parameter.numel() for parameter in skeleton.parameters())
    if described > weights.stat().st_size:  # no type has less than one byte
        raise ValueError(
            f"{CONFIG_NAME} describes {described} weights, but the weights file has {weights.stat().st_size} bytes"
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
    """Embed one image and one text, so that what cannot work is known before anything is built on it."""
    tensors = [tensor for tensor in clip.model.state_dict().values() if tensor.is_floating_point()]
    if not all(torch.isfinite(tensor).all() for tensor in tensors):
        raise ValueError("it holds weights that are not finite numbers")
    with torch.no_grad():
        image = clip.model.encode_image(torch.zeros(1, 3, clip.image_size, clip.image_size))  # type: ignore[operator]
        text = clip.model.encode_text(clip.tokenizer(["a"]))  # type: ignore[operator]
    if not (torch.isfinite(image).all() and torch.isfinite(text).all()):
        raise ValueError("its embeddings are not finite numbers")
    if image.shape != text.shape:
        raise ValueError(f"its embeddings have {image.shape[-1]} and {text.shape[-1]} entries, and cannot be compared")


def _arranged(folder: Path, config: dict[str, Any], weights: Path, layout: Path) -> Path:
    """Link the files of `folder` below names that open_clip looks for, with the complete config beside them."""
    layout.mkdir(parents=True)
    for file in folder.iterdir():
        if file.suffix not in WEIGHTS_SUFFIXES and file.name != CONFIG_NAME:
            (layout / file.name).symlink_to(file.resolve())
    name = WEIGHTS_NAME if weights.suffix == ".safetensors" else PICKLE_NAME
    (layout / name).symlink_to(weights.resolve())
    (layout / CONFIG_NAME).write_text(json.dumps(config))
    return layout


def _from_tag(architecture: str, pretrained: str, scratch: Path) -> Clip:
    model_cfg = _known_config(architecture)
    tag = open_clip.get_pretrained_cfg(architecture, pretrained)
    # open_clip only warns where a tag was trained with another activation than its architecture names.
    quick_gelu = bool(tag.get("quick_gelu", False)) if tag else bool(model_cfg.get("quick_gelu", False))
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
            name: model.visual.preprocess_cfg[name] for name in ("mean", "std", "interpolation", "resize_mode")
        },
    }
    return _clip(model, config, architecture, save_weights(model, scratch / "digest.safetensors"))


def _from_hub(reference: str, scratch: Path) -> Clip:
    path = open_clip.download_pretrained_from_hf(reference.removeprefix("hf-hub:"), filename=CONFIG_NAME)
    config = json.loads(Path(path).read_text())
    model = open_clip.create_model(reference, require_pretrained=True)
    return _clip(model, config, reference, save_weights(model, scratch / "digest.safetensors"))


def _clip(model: torch.nn.Module, config: dict[str, Any], name: str, digest: str) -> Clip:
    preprocess = PreprocessCfg(**model.visual.preprocess_cfg)  # type: ignore[arg-type, union-attr]
    height, width = (preprocess.size, preprocess.size) if isinstance(preprocess.size, int) else preprocess.size
    if height != width:
        raise ValueError(f"it takes images of {height} x {width} pixels, but only square ones are supported")
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
    """Return the name that the config gives, or one that says what it describes, e.g. `ViT-10x256-p32-224`."""
    if "architecture" in config:
        return str(config["architecture"])
    vision = config["model_cfg"]["vision_cfg"]
    size = vision.get("image_size", 224)
    if "timm_model_name" in vision:
        return f"{vision['timm_model_name']}-{size}"
    if isinstance(vision["layers"], list):
        return f"RN-{'.'.join(map(str, vision['layers']))}-w{vision.get('width', 64)}-{size}"
    return f"ViT-{vision['layers']}x{vision['width']}-p{vision['patch_size']}-{size}"


def _known_config(architecture: str) -> dict[str, Any]:
    # `get_model_config` also takes places, as in hf-hub:owner/name, and would go there.
    config = open_clip.get_model_config(architecture) if architecture in open_clip.list_models() else None
    if config is None:
        raise ValueError(f"open_clip knows no architecture {architecture!r}; see open_clip.list_models()")
    return deepcopy(config)


def _weights_file(folder: Path) -> Path:
    if (folder / WEIGHTS_NAME).is_file():
        return folder / WEIGHTS_NAME
    files = [file for suffix in WEIGHTS_SUFFIXES for file in sorted(folder.glob(f"*{suffix}"))]
    if not files:
        raise FileNotFoundError(f"there is no weights file ({', '.join(WEIGHTS_SUFFIXES)}) in {folder.name}")
    return files[0]


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
            "invalid_checkpoint", f"The checkpoint {reference!r} cannot be loaded: {error.detail}"
        ) from error
    except pickle.UnpicklingError as error:
        detail = f"The checkpoint {reference!r} holds more than weights, or is damaged; give it as safetensors."
        raise JobFailure("invalid_checkpoint", detail) from error
    except Exception as error:  # open_clip, timm, transformers and torch raise whatever a bad file leads them to
        detail = f"The checkpoint {reference!r} cannot be loaded: {words(error)}"
        raise JobFailure("invalid_checkpoint", detail) from error
