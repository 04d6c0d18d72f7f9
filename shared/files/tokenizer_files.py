"""Files of a Hugging Face tokenizer or text tower beside the weights of some models."""

from typing import Literal, get_args

TokenizerFile = Literal[
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
]
TOKENIZER_NAMES: frozenset[TokenizerFile] = frozenset(get_args(TokenizerFile))
TOWER_CONFIG = "config.json"
"""Of a text tower of Hugging Face, which is made of it with no network."""
