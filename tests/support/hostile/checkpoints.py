"""Hostile checkpoints: headers and configs that lie, pickles, and weights that only show when they are loaded."""

import gzip
import io
import json
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

from tests.support.hostile import LIMITS, Hostile
from tests.support.hostile.archives import BROKEN, LINK, OUTSIDE, TWICE, UNPACKS, bomb, one, patched, tarred, zipped

CONFIG_NAME, WEIGHTS_NAME = "open_clip_config.json", "open_clip_model.safetensors"
PICKLE_NAME = "open_clip_pytorch_model.bin"
VISION = {"layers": 2, "width": 64, "patch_size": 8, "image_size": 32}
TEXT = {"layers": 2, "width": 32, "heads": 2, "context_length": 16, "vocab_size": 49408}


class Payload:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return eval, ("open('/tmp/efface-hostile-payload', 'w').close()",)


def safetensors(tensors: Mapping[str, Mapping[str, object]], data: bytes = bytes(16)) -> bytes:
    """Return a file with this header."""
    return framed(json.dumps(tensors).encode(), data)


def framed(header: bytes, data: bytes = b"") -> bytes:
    """Return a file with these bytes as its header."""
    return struct.pack("<Q", len(header)) + header + data


def tensor(begin: int = 0, end: int = 16, shape: tuple[int, ...] = (4,), dtype: str = "F32") -> dict[str, object]:
    """Return the entry of one tensor."""
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


SOUND = safetensors({"weight": tensor()})


def bare(build: Callable[[], bytes], says: str, **changes: Any) -> Hostile:
    """Return a safetensors file that is uploaded with the name of an architecture."""
    asked = {"filename": "x.safetensors", "fields": (("architecture", "ViT-B-32"),)} | changes
    return Hostile(build, says, **asked)


def weights(tensors: Mapping[str, Mapping[str, object]], says: str = "not a sound safetensors") -> Hostile:
    """Return a safetensors file with a header that is JSON, but wrong."""
    return bare(lambda: safetensors(tensors), says)


def config(says: str, *, vision: Any = None, text: Any = None, top: Any = None, **model: Any) -> Hostile:
    """Return an archive whose config was changed."""
    body = {
        "model_cfg": {
            "embed_dim": 32,
            "vision_cfg": VISION | (vision or {}),
            "text_cfg": TEXT | (text or {}),
        }
        | model
    }
    return layout(json.dumps(body | (top or {})).encode(), says)


def layout(content: bytes, says: str) -> Hostile:
    """Return an archive with these bytes as its config."""
    return Hostile(lambda: zipped([(CONFIG_NAME, content), (WEIGHTS_NAME, SOUND)]), says)


def torch_file(payload: object, method: int = zipfile.ZIP_STORED) -> bytes:
    """Return what `torch.save` would write, with any pickle in it."""
    return zipped([("archive/data.pkl", pickle.dumps(payload)), ("archive/version", b"3")], method)


def with_link() -> bytes:
    """Return a tar whose weights are a link."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo(CONFIG_NAME)
        info.size = len(GOOD_CONFIG)
        archive.addfile(info, io.BytesIO(GOOD_CONFIG))
        link = tarfile.TarInfo(WEIGHTS_NAME)
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return out.getvalue()


GOOD_CONFIG = json.dumps({"model_cfg": {"embed_dim": 32, "vision_cfg": VISION, "text_cfg": TEXT}}).encode()
UNKNOWN, NOT_JSON, NAMELESS = "not a field that is known", "is not JSON", "/architecture"


def named(architecture: str) -> Hostile:
    """Return a sound file under the name of an architecture that is none."""
    asked: dict[str, Any] = {"field": NAMELESS, "fields": (("architecture", architecture),)}
    return bare(lambda: SOUND, "no name of an architecture", **asked)


CHECKPOINTS: dict[str, Hostile] = {
    # Headers of safetensors.
    "header cut off": bare(lambda: b"1234", "not a sound safetensors"),
    "header of 2^60 bytes": bare(lambda: struct.pack("<Q", 1 << 60) + b"{}", "not a sound safetensors"),
    "header longer than the file": bare(lambda: struct.pack("<Q", 900) + b"{}", "not a sound safetensors"),
    "header of no JSON": bare(lambda: framed(b"{{{{{{{{"), "not a sound safetensors"),
    "header of no text": bare(lambda: framed(b"\xff\xfe\xff\xfe"), "not a sound safetensors"),
    "header nested 100,000 deep": bare(lambda: framed(b'{"a":' * 100_000), "not a sound safetensors"),
    "header that is a list": bare(lambda: framed(b"[1, 2, 3]"), "not a sound safetensors"),
    "no tensor": bare(lambda: framed(b"{}"), "holds 0 tensors"),
    "tensors that overlap": weights({"a": tensor(0, 16), "b": tensor(8, 16, (2,))}),
    "tensors with a gap": weights({"a": tensor(0, 4, (1,)), "b": tensor(8, 16, (2,))}),
    "tensor beyond the file": weights({"a": tensor(0, 1 << 40, (1 << 38,))}),
    "tensor with a negative offset": weights({"a": tensor(-16, 0)}),
    "tensor that ends before it begins": weights({"a": tensor(16, 0)}),
    "tensor of another size than its shape": weights({"a": tensor(0, 16, (5,))}),
    "tensor whose size overflows": weights({"a": tensor(0, 16, (1 << 62, 1 << 62))}),
    "tensor of an unknown type": weights({"a": tensor(dtype="P64")}),
    "tensor without a place": weights({"a": {"dtype": "F32", "shape": [4]}}),
    "weights that are whole numbers": weights({"a": tensor(dtype="I32")}, "weights must be"),
    "weights that are flags": weights({"a": tensor(0, 16, (16,), "BOOL")}, "weights must be"),
    "bytes behind the last tensor": bare(lambda: SOUND + b"more", "not a sound safetensors"),
    "last tensor cut off": bare(lambda: SOUND[:-1], "not a sound safetensors"),
    # Configs.
    "config of no JSON": layout(b"{{", NOT_JSON),
    "config of no text": layout(b"\xff\xfe{}", NOT_JSON),
    "config nested 100,000 deep": layout(b"[" * 100_000, NOT_JSON),
    "config that is a list": layout(b"[1, 2]", "must be an object"),
    "config of two megabytes": layout(b" " * 2_000_000, "at most"),
    "config without a model": layout(b"{}", "needs model_cfg"),
    "config with a number of 5000 digits": layout(b'{"model_cfg": ' + b"9" * 5000 + b"}", NOT_JSON),
    "unknown field": config(UNKNOWN, top={"__class__": "os.system"}),
    "unknown field of a tower": config(UNKNOWN, vision={"import": "os"}),
    "code from the hub": config(UNKNOWN, text={"tokenizer_kwargs": {"trust_remote_code": True}}),
    "tokenizer from the folder above": config("pattern", text={"hf_tokenizer_name": ".."}),
    "tokenizer beside the folder": config("pattern", text={"hf_tokenizer_name": "../x"}),
    "tower from a path": config("pattern", text={"hf_model_name": "../../etc"}),
    "tower from anywhere": config("pattern", vision={"timm_model_name": "hf-hub:someone/something"}),
    "architecture from the hub": layout(b'{"architecture": "hf-hub:someone/something"}', "pattern"),
    "architecture from a path": layout(b'{"architecture": "local-dir:/etc"}', "pattern"),
    "architecture with NUL": layout(b'{"architecture": "ViT\\u0000"}', "pattern"),
    "architecture of half a character": layout(b'{"architecture": "\\ud800"}', "/architecture"),
    "width of 2^40": config("less than or equal", vision={"width": 1 << 40}),
    "no layer": config("greater than or equal", vision={"layers": 0}),
    "negative width": config("greater than or equal", text={"width": -1}),
    "a million layers": config("less than or equal", text={"layers": 1_000_000}),
    "layers as a text": config("valid integer", vision={"layers": "12"}),
    "layers as a list of five": config("at most 4", vision={"layers": [1, 1, 1, 1, 1]}),
    "width as a flag": config("valid integer", vision={"width": True}),
    "vocabulary of 2^40": config("less than or equal", text={"vocab_size": 1 << 40}),
    "image of 100,000 pixels a side": config("less than or equal", vision={"image_size": 100_000}),
    "patches of one pixel": config("patches", vision={"patch_size": 1, "image_size": 1024}),
    "ratio that is no number": config("finite", vision={"mlp_ratio": float("nan")}),
    "ratio beyond all numbers": config("finite", vision={"mlp_ratio": float("inf")}),
    "deviation of zero": config("greater than 0", top={"preprocess_cfg": {"std": [0, 0, 0]}}),
    "tower that is a list": config("must be an object", text_cfg=[]),
    # Pickles.
    "bare pickle": Hostile(lambda: pickle.dumps(Payload()), "neither", filename="x.pt"),
    "pickle under another name": bare(lambda: pickle.dumps(Payload()), "not a sound safetensors"),
    "pickle in an archive": Hostile(
        lambda: zipped([(CONFIG_NAME, GOOD_CONFIG), (PICKLE_NAME, pickle.dumps(Payload()))]), "not a torch file"
    ),
    "torch file with compressed parts": Hostile(lambda: torch_file(Payload(), zipfile.ZIP_DEFLATED), "compressed parts"),
    "torch file that is cut off": Hostile(lambda: torch_file(Payload())[:-30], "neither"),
    "torch file with a broken directory": Hostile(
        lambda: patched(torch_file(Payload()), b"PK\x01\x02", 0, b"XXXX"), BROKEN
    ),
    # Archives.
    "checkpoint outside of its folder": Hostile(
        lambda: zipped([(CONFIG_NAME, GOOD_CONFIG), (f"../{WEIGHTS_NAME}", SOUND)]), OUTSIDE
    ),
    "weights that are a link": Hostile(with_link, LINK),
    "weights twice": Hostile(lambda: tarred([(CONFIG_NAME, GOOD_CONFIG), *[(WEIGHTS_NAME, SOUND)] * 2]), TWICE),
    "two models in one": Hostile(
        lambda: zipped([("a/" + CONFIG_NAME, GOOD_CONFIG), ("b/" + CONFIG_NAME, GOOD_CONFIG)]), "twice"
    ),
    "checkpoint that is a bomb": Hostile(
        lambda: zipped([(WEIGHTS_NAME, bytes(5_000_000))], zipfile.ZIP_DEFLATED), UNPACKS
    ),
    "checkpoint in a bomb": Hostile(bomb(gzip.compress), UNPACKS),
    "encrypted checkpoint": Hostile(lambda: patched(one(), b"PK\x01\x02", 8, b"\x01\0"), "is encrypted"),
    "archive without a config": Hostile(lambda: zipped([(WEIGHTS_NAME, SOUND)]), "holds no open_clip_config"),
    "archive without weights": Hostile(lambda: zipped([(CONFIG_NAME, GOOD_CONFIG)]), "holds no weights"),
    "checkpoint over the limit": Hostile(lambda: bytes(LIMITS["max_upload_bytes"] + 1), "bytes", field="", status=413),
    # What is said about a file.
    "no architecture": bare(lambda: SOUND, "needs the architecture", field=NAMELESS, fields=()),
    "architecture that is a place": named("hf-hub:someone/something"),
    "architecture that is a path": named("../../etc/passwd"),
    "architecture of NUL": named("ViT\0"),
    "architecture of 5000 characters": named("V" * 5000),
    "name that turns around": bare(lambda: SOUND, "direction", field="/name", fields=(("name", "\u202eevil"),)),
    "name of 500 characters": bare(lambda: SOUND, "at most 100", field="/name", fields=(("name", "n" * 500),)),
}  # fmt: skip
