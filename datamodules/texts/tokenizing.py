"""Tokenizers: the fast tokenizer of a backbone, or a WordPiece vocabulary of the train texts."""

import logging
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from datamodules.reading.errors import DataError
from datamodules.reading.progress import progress
from run_folders.errors import brief, near_names
from run_folders.memory import check_model_folder

log = logging.getLogger(__name__)

_CHUNK = 1_000  # texts that are tokenised at a time
_NO_ID = -1  # no token has it
_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


class TokenizerSpec(TypedDict):
    """Settings of a vocabulary that is built from the train split.

    Attributes:
        vocab_size: Largest number of entries.
    """

    vocab_size: int


class TokenIds(NamedTuple):
    """Token ids of N texts.

    Attributes:
        flat: The ids of all texts, one after the other, int32.
        lengths: Number of tokens of each text, [N] int64.
        truncated: Number of texts of which not all tokens are there.
        unknown: Number of tokens that the vocabulary does not know.
    """

    flat: npt.NDArray[np.int32]
    lengths: npt.NDArray[np.int64]
    truncated: int = 0
    unknown: int = 0


class TokenizerState(TypedDict):
    """A tokenizer as primitives for a checkpoint: the content of tokenizer.json, and an id."""

    tokenizer: str
    pad_id: int


@dataclass(frozen=True)
class TextTokenizer:
    """Tokenizer that can be stored in a checkpoint.

    Attributes:
        backend: The fast tokenizer, including its special tokens.
        pad_id: Id of the padding token, or 0.
    """

    backend: Tokenizer
    pad_id: int

    def encode(self, texts: Iterable[str], max_length: int, total: int | None = None) -> TokenIds:
        """Tokenise texts.

        Args:
            texts: The texts; they are read in chunks.
            max_length: Number of tokens to which longer texts are truncated; special tokens stay.
            total: Number of texts, for the progress.
        """
        self.backend.no_padding()
        self.backend.enable_truncation(max_length)
        flat, lengths = array("i"), array("q")
        truncated = unknown = 0
        unknown_id = _NO_ID if self.unknown_id is None else self.unknown_id
        with progress("tokenizing", total, "texts") as advance:
            source = iter(texts)
            while chunk := list(islice(source, _CHUNK)):
                for encoding in self.backend.encode_batch_fast(chunk):
                    ids = encoding.ids
                    flat.extend(ids)
                    lengths.append(len(ids))
                    # The overflow is copied when it is read, so shorter texts are not asked for it.
                    truncated += len(ids) == max_length and bool(encoding.overflowing)
                    unknown += ids.count(unknown_id)
                advance(len(chunk))
        return TokenIds(
            np.frombuffer(flat, np.int32), np.frombuffer(lengths, np.int64), truncated, unknown
        )

    @property
    def unknown_id(self) -> int | None:
        """Id of the token for what the vocabulary does not know, if there is such a token."""
        # The library does not tell the one of a Unigram model; SentencePiece calls it <unk>.
        name = getattr(self.backend.model, "unk_token", "<unk>")
        return None if name is None else self.backend.token_to_id(name)

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
        DataError: If it does not exist or is not a fast tokenizer.
        DamagedFileError: If a file of the folder is too large.
    """
    from transformers import AutoTokenizer

    check_model_folder(Path(name))
    if not Path(name).is_dir():
        log.info("tokenizer: looking for %s in the cache and on the Hugging Face Hub", name)
    try:
        loaded = AutoTokenizer.from_pretrained(name, use_fast=True, trust_remote_code=False)
    except Exception as error:  # a damaged tokenizer.json may raise any error, for example KeyError
        raise DataError(_not_loaded(name, error)) from error
    if not loaded.is_fast:
        msg = (
            f"{name}: has no fast tokenizer (tokenizer.json); "
            "save one with save_pretrained, or take another backbone"
        )
        raise DataError(msg)
    if loaded.init_kwargs.get("auto_map"):
        log.warning(
            "%s: Thaw does not run code of a model folder, so auto_map in tokenizer_config.json is "
            "ignored and the tokenizer is the %s of transformers",
            name,
            type(loaded).__name__,
        )
    # Networks never read padding, so a tokenizer without a padding token, as of GPT-2, pads with 0.
    return TextTokenizer(loaded.backend_tokenizer, int(loaded.pad_token_id or 0))


def _names_code(name: str) -> bool:
    """Return whether a tokenizer or its model names code of its folder or of the hub."""
    from transformers import PretrainedConfig
    from transformers.models.auto.tokenization_auto import get_tokenizer_config

    offline: Any = {"local_files_only": True}  # the loader has asked the hub before
    for read in (get_tokenizer_config, PretrainedConfig.get_config_dict):
        with suppress(Exception):  # a damaged file raises any error; the caller has the first one
            found = read(name, **offline)
            values = found[0] if isinstance(found, tuple) else found
            if values.get("auto_map"):
                return True
    return False


def _not_loaded(name: str, error: Exception) -> str:
    reason = brief(error)
    folder = Path(name)
    if _names_code(name):
        return (
            f"{name}: it names code (auto_map), and Thaw does not run code of a model folder; "
            "save a fast tokenizer there (tokenizer.json) with save_pretrained, or choose another "
            "backbone"
        )
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
        "go online once, set model.backbone to a local folder, or start from random weights with "
        "model.backbone='{model_type: bert}' data.tokenizer='{vocab_size: 2000}'; "
        "HF_HUB_OFFLINE=1 reads only the cache"
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
