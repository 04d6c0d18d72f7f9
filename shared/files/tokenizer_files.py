"""Files of a Hugging Face tokenizer, which lie beside the weights of some models: uploaded,
published and handed out with them.
"""

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
