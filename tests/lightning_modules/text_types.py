"""Tiny networks of texts on disk, and their tokenizer."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModel, PretrainedConfig, PreTrainedTokenizerFast

from benchmarks.tiny_texts import PAD, VOCABULARY


def save_tiny(config: PretrainedConfig, folder: Path) -> None:
    """Save a tiny network with random weights."""
    torch.manual_seed(0)
    AutoModel.from_config(config, dtype=torch.float32).save_pretrained(folder)


def save_tokenizer(folder: Path, **special: str) -> None:
    """Save a tokenizer of the words w2, w3, ... and of these special tokens."""
    words = {"[UNK]": 0, "[PAD]": PAD} | {f"w{i}": i for i in range(2, VOCABULARY)}
    backend = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", **special).save_pretrained(
        folder
    )
