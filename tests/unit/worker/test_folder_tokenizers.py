"""Tokenizers of Hugging Face: loaded from the folder with no network, and published with the weights."""

import json
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, PreTrainedTokenizerFast

from shared.errors import JobFailure
from tests.support.tiny import write_model
from worker.clip.checkpoint import load_clip, save_clip

WORDS = ["[PAD]", "[UNK]", "horse", "cat", "a"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model whose text tower reads the ids of another tokenizer, as SigLIP's does."""
    folder = write_model(tmp_path / "model", "vit")
    content = json.loads((folder / "open_clip_config.json").read_text())
    content["model_cfg"]["text_cfg"] |= {
        "hf_tokenizer_name": "somebody/siglip",
        "tokenizer_kwargs": {"clean": "canonicalize"},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    return folder


def write_tokenizer(folder: Path) -> None:
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)


def test_a_tokenizer_is_read_from_the_folder_and_published(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tokenizer(folder)
    monkeypatch.setattr("socket.socket.connect", None)

    clip = load_clip(f"local-dir:{folder}", scratch=tmp_path / "scratch")
    save_clip(clip, tmp_path / "published")
    again = load_clip(f"local-dir:{tmp_path / 'published'}", scratch=tmp_path / "second")

    texts = ["A cat, a horse!", "zebra"]
    assert clip.tokenizer(texts)[:, :4].tolist() == [[4, 3, 4, 2], [1, 0, 0, 0]]
    assert torch.equal(again.tokenizer(texts), clip.tokenizer(texts))


def test_a_tokenizer_whose_files_are_missing_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(JobFailure, match="its tokenizer is that of somebody/siglip") as caught:
        load_clip(f"local-dir:{folder}", scratch=tmp_path / "scratch")

    assert "tokenizer.json" in caught.value.detail


def test_code_beside_a_tokenizer_is_not_run(folder: Path, tmp_path: Path) -> None:
    write_tokenizer(folder)
    ran = tmp_path / "ran"
    (folder / "mine.py").write_text(f"from pathlib import Path\nPath({str(ran)!r}).touch()\nclass Mine: pass\n")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config |= {"tokenizer_class": "Mine", "auto_map": {"AutoTokenizer": ["mine.Mine", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))

    try:
        load_clip(f"local-dir:{folder}", scratch=tmp_path / "scratch")
    except JobFailure as failure:
        assert failure.code == "invalid_checkpoint"
    assert not ran.exists()


def test_a_text_tower_of_hugging_face_is_made_with_no_network(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tokenizer(folder)
    monkeypatch.setattr("socket.socket.connect", None)
    sizes = {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 40,
        "vocab_size": 9,
    }
    BertConfig(**sizes).save_pretrained(folder)
    content = json.loads((folder / "open_clip_config.json").read_text())
    text = {"hf_model_name": "somebody/bert", "hf_tokenizer_name": "somebody/bert", "hf_pooler_type": "mean_pooler"}
    content["model_cfg"] |= {"custom_text": True, "text_cfg": text | {"hf_proj_type": "mlp", "context_length": 16}}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    local = content["model_cfg"]["text_cfg"] | {"hf_model_name": str(folder), "hf_model_pretrained": False}
    model = open_clip.CustomTextCLIP(
        embed_dim=32, vision_cfg=content["model_cfg"]["vision_cfg"], text_cfg=local, quick_gelu=True
    )
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")

    clip = load_clip(f"local-dir:{folder}", scratch=tmp_path / "scratch")
    save_clip(clip, tmp_path / "published")
    again = load_clip(f"local-dir:{tmp_path / 'published'}", scratch=tmp_path / "second")

    texts = clip.tokenizer(["a cat", "horse"])
    assert torch.equal(clip.model.encode_text(texts), again.model.encode_text(texts))
    assert torch.equal(clip.model.encode_text(texts), model.eval().encode_text(texts))
    assert clip.config["model_cfg"]["text_cfg"]["hf_model_name"] == "somebody/bert"
