"""Small CLIPs with random weights, and pictures: enough to run every line of the engine in a moment."""

import json
from pathlib import Path

import open_clip
import torch
from PIL import Image
from safetensors.torch import save_file

TEXT = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
VISION = {
    "vit": {"image_size": 32, "layers": 4, "width": 32, "patch_size": 8, "head_width": 16},
    "resnet": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None},
}
COLOURS = {"red": (200, 30, 30), "green": (30, 160, 40), "blue": (30, 50, 200)}


def write_model(folder: Path, kind: str, seed: int = 0) -> Path:
    """Write a random model of one kind in open_clip's local-dir layout."""
    config = {"embed_dim": 32, "quick_gelu": True, "text_cfg": TEXT, "vision_cfg": VISION[kind]}
    torch.manual_seed(seed)
    model = open_clip.CLIP(**config)
    for name, parameter in model.visual.named_parameters():
        if name.endswith("bn3.weight"):  # zero at the start of a training: a residual branch without effect or gradient
            torch.nn.init.uniform_(parameter, 0.5, 1.0)
    folder.mkdir(parents=True)
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": {"interpolation": "bicubic", "resize_mode": "shortest"}})
    )
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / "open_clip_model.safetensors")
    return folder


def write_pictures(folder: Path, classes: tuple[str, ...] = tuple(COLOURS), count: int = 4, seed: int = 0) -> Path:
    """Write `count` noisy pictures of each class, every one different, as class folders."""
    generator = torch.Generator().manual_seed(seed)
    for number, label in enumerate(classes):
        (folder / label).mkdir(parents=True)
        base = torch.tensor(list(COLOURS.values())[number % len(COLOURS)]).view(1, 1, 3)
        for i in range(count):
            noise = torch.randint(-25, 25, (40, 40, 3), generator=generator)
            pixels = (base + noise).clamp(0, 255).to(torch.uint8).numpy()
            Image.fromarray(pixels).save(folder / label / f"{i}.png")
    return folder
