"""The backbone's own fast tokenizer, or a WordPiece vocabulary taken from the training texts."""

import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from rich.progress import track
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from datamodules.reading.errors import DataError
from run_folders.errors import brief, near_names

_PIECE = 5_000  # texts between two steps of the progress bar
_LONG_WORK = 50_000  # texts from which on tokenising takes seconds
_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


class TokenizerSpec(TypedDict):
    """Asks for a vocabulary of that many entries, made from the train split."""

    vocab_size: int


@dataclass(frozen=True)
class TextTokenizer:
    """Text -> token ids, complete in itself.

    Attributes:
        backend: The fast tokenizer, special tokens included.
        pad_id: Id that fills a batch up.
    """

    backend: Tokenizer
    pad_id: int

    def encode(self, texts: list[str], max_length: int) -> list[list[int]]:
        """Token ids of each text, cut to `max_length` with the special tokens kept."""
        self.backend.no_padding()
        self.backend.enable_truncation(max_length)
        ids: list[list[int]] = []
        quick = len(texts) < _LONG_WORK or not sys.stderr.isatty()
        for start in track(
            range(0, len(texts), _PIECE), "tokenising", transient=True, disable=quick
        ):
            ids += [
                encoding.ids
                for encoding in self.backend.encode_batch_fast(texts[start : start + _PIECE])
            ]
        return ids

    @property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        return max(self.backend.get_vocab(with_added_tokens=True).values()) + 1

    def to_state(self) -> dict[str, str | int]:
        """Primitives for a checkpoint."""
        return {"tokenizer": self.backend.to_str(), "pad_id": self.pad_id}

    @classmethod
    def from_state(cls, state: dict[str, str | int]) -> "TextTokenizer":
        """The inverse of `to_state`."""
        return cls(Tokenizer.from_str(str(state["tokenizer"])), int(state["pad_id"]))


def load_tokenizer(name: str) -> TextTokenizer:
    """Load a tokenizer by hub name or from a local folder.

    Args:
        name: For example `bert-base-uncased`, or a folder with tokenizer.json.

    Returns:
        The tokenizer.

    Raises:
        DataError: If there is none, or none of the fast kind.
    """
    from transformers import AutoTokenizer

    try:
        loaded = AutoTokenizer.from_pretrained(name, use_fast=True)
    except Exception as error:  # a damaged tokenizer.json raises anything, KeyError for one
        raise DataError(_not_loaded(name, error)) from error
    if not loaded.is_fast:
        msg = f"{name}: has no fast tokenizer (tokenizer.json); save one with save_pretrained, or take another backbone"
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
        return f"{folder.resolve()}: no tokenizer in this folder ({reason}); save one there with save_pretrained"
    siblings = [path.name for path in folder.parent.iterdir()] if folder.parent.is_dir() else []
    near = near_names(folder.name, siblings, count=1)
    hint = f"; {folder.parent / near[0]} exists" if near and folder.is_absolute() else ""
    return (
        f"no tokenizer for {name}: no such folder ({folder.resolve()}), and the hub gave none ({reason}){hint}; "
        f"go online once, or set model.backbone to a local folder"
    )


def vocabulary_tokenizer(texts: Iterable[str], vocab_size: int) -> TextTokenizer:
    """Make a WordPiece tokenizer whose vocabulary is all characters and the most frequent words.

    The same texts give the same vocabulary, ties included; trained tokenizers do not promise that.

    Args:
        texts: The training texts.
        vocab_size: Number of entries at most.

    Returns:
        The tokenizer, lower-casing, with [CLS] and [SEP] around each text.

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
        msg = f"data.tokenizer.vocab_size={vocab_size} is too small: the characters alone need {len(entries)}"
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
