"""Tokenizers: the fast tokenizer of a backbone, or a WordPiece vocabulary of the train texts."""

import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from rich.progress import track
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from datamodules.reading.errors import DataError
from run_folders.errors import brief, near_names
from run_folders.memory import check_model_folder

_CHUNK = 5_000  # texts per step of the progress bar
_SHOW_PROGRESS_FROM = 50_000  # texts; tokenising them takes seconds
_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


class TokenizerSpec(TypedDict):
    """Settings of a vocabulary that is built from the train split.

    Attributes:
        vocab_size: Largest number of entries.
    """

    vocab_size: int


class TokenizerState(TypedDict):
    """A tokenizer as primitives for a checkpoint: the content of tokenizer.json, and an id."""

    tokenizer: str
    pad_id: int


@dataclass(frozen=True)
class TextTokenizer:
    """Tokenizer that can be stored in a checkpoint.

    Attributes:
        backend: The fast tokenizer, including its special tokens.
        pad_id: Id of the padding token.
    """

    backend: Tokenizer
    pad_id: int

    def encode(self, texts: list[str], max_length: int) -> list[list[int]]:
        """Return the token ids of each text, truncated to `max_length` with special tokens kept."""
        self.backend.no_padding()
        self.backend.enable_truncation(max_length)
        ids: list[list[int]] = []
        hidden = len(texts) < _SHOW_PROGRESS_FROM or not sys.stderr.isatty()
        for start in track(
            range(0, len(texts), _CHUNK), "tokenizing", transient=True, disable=hidden
        ):
            ids += [
                encoding.ids
                for encoding in self.backend.encode_batch_fast(texts[start : start + _CHUNK])
            ]
        return ids

    @property
    def vocab_size(self) -> int:
        """Largest id + 1."""
        return max(self.backend.get_vocab(with_added_tokens=True).values()) + 1

    def to_state(self) -> dict[str, Any]:
        """Return the tokenizer as primitives for a checkpoint."""
        return {"tokenizer": self.backend.to_str(), "pad_id": self.pad_id}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "TextTokenizer":
        """Restore a tokenizer from the result of `to_state`.

        Raises:
            DataError: If it is damaged.
        """
        try:
            backend = Tokenizer.from_str(state["tokenizer"])
        except Exception as error:  # the library raises plain exceptions
            msg = f"its tokenizer cannot be read ({brief(error)})"
            raise DataError(msg) from error
        return cls(backend, state["pad_id"])


def load_tokenizer(name: str) -> TextTokenizer:
    """Load a tokenizer by hub name or from a local folder.

    Args:
        name: For example `bert-base-uncased`, or a folder with tokenizer.json.

    Returns:
        The tokenizer.

    Raises:
        DataError: If it does not exist, is not a fast tokenizer or has no padding token.
        DamagedFileError: If a file of the folder is too large.
    """
    from transformers import AutoTokenizer

    check_model_folder(Path(name))
    try:
        loaded = AutoTokenizer.from_pretrained(name, use_fast=True)
    except Exception as error:  # a damaged tokenizer.json may raise any error, for example KeyError
        raise DataError(_not_loaded(name, error)) from error
    if not loaded.is_fast:
        msg = (
            f"{name}: has no fast tokenizer (tokenizer.json); "
            "save one with save_pretrained, or take another backbone"
        )
        raise DataError(msg)
    if loaded.pad_token_id is None:
        msg = (
            f"{name}: its tokenizer has no padding token; set one and save it with save_pretrained"
        )
        raise DataError(msg)
    return TextTokenizer(loaded.backend_tokenizer, int(loaded.pad_token_id))


def _not_loaded(name: str, error: Exception) -> str:
    reason = brief(error)
    folder = Path(name)
    if folder.is_dir():
        return (
            f"{folder.resolve()}: no tokenizer in this folder ({reason}); "
            "save one there with save_pretrained"
        )
    siblings = [path.name for path in folder.parent.iterdir()] if folder.parent.is_dir() else []
    near = near_names(folder.name, siblings, count=1)
    hint = f"; {folder.parent / near[0]} exists" if near and folder.is_absolute() else ""
    return (
        f"no tokenizer for {name}: no such folder ({folder.resolve()}), "
        f"and none from the hub ({reason}){hint}; "
        "go online once, or set model.backbone to a local folder"
    )


def vocabulary_tokenizer(texts: Iterable[str], vocab_size: int) -> TextTokenizer:
    """Build a WordPiece tokenizer whose vocabulary is all characters and the most frequent words.

    Equal texts result in equal vocabularies, even if word counts are tied. Trained tokenizers do
    not guarantee that.

    Args:
        texts: The training texts.
        vocab_size: Largest number of entries.

    Returns:
        A lower-casing tokenizer that adds [CLS] and [SEP] to each text.

    Raises:
        DataError: If the characters alone exceed `vocab_size`.
    """
    normalizer = normalizers.BertNormalizer(lowercase=True)
    splitter = pre_tokenizers.BertPreTokenizer()
    words: Counter[str] = Counter()
    for text in texts:
        words.update(word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    letters = sorted({letter for word in words for letter in word})
    entries = [*_SPECIAL, *letters, *(f"##{letter}" for letter in letters)]
    if len(entries) > vocab_size:
        msg = (
            f"data.tokenizer.vocab_size={vocab_size} is too small: "
            f"the characters alone need {len(entries)}"
        )
        raise DataError(msg)
    known = set(entries)
    frequent = sorted(
        (word for word in words if word not in known), key=lambda word: (-words[word], word)
    )
    entries += frequent[: vocab_size - len(entries)]
    backend = Tokenizer(
        models.WordPiece({entry: i for i, entry in enumerate(entries)}, unk_token="[UNK]")  # noqa: S106
    )
    backend.normalizer = normalizer
    backend.pre_tokenizer = splitter
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return TextTokenizer(backend, pad_id=0)
