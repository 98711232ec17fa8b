"""WordPiece tokenizers, trained on texts or loaded from a folder.

Text cleaning is a normalizer of the tokenizer, so it is saved and loaded with it.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from datamodules.reading.progress import progress
from keras_bert.errors import KerasBertError
from run_folders.errors import UserError
from run_folders.memory import check_model_folder
from run_folders.untrusted import read_json

FILE = "tokenizer.json"
_CHUNK = 1_000  # texts that are tokenised at a time
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_URL, _USER = " url ", " user "
_LINK, _NAME = Regex(r"(?:https?://|www\.)\S+"), Regex(r"(?<![\w.@])@\w+")


def train_tokenizer(
    texts: Iterable[str], vocab_size: int, *, clean_links: bool = True
) -> Tokenizer:
    """Train a lower-case WordPiece tokenizer in which [PAD] has id 0.

    The same texts always result in the same vocabulary.

    Args:
        texts: The texts of the training split only.
        vocab_size: Maximum number of tokens; a learned piece occurs at least twice.
        clean_links: Replace links and @names with the words "url" and "user".

    Returns:
        The tokenizer.

    Raises:
        KerasBertError: If `vocab_size` is too small for the characters and the special tokens.
    """
    tokenizer = _wordpiece({}, lowercase=True)
    if clean_links:
        _clean(tokenizer)
    texts = list(texts)
    letters = sorted(
        set("".join(tokenizer.normalizer.normalize_str(text) for text in texts)) - {" "}
    )
    # Otherwise the trainer numbers the "##x" pieces in the order of a hash map. Ties between merges
    # are broken by these ids, so each process would learn another vocabulary.
    first = [*SPECIAL_TOKENS, *(f"##{letter}" for letter in letters)]
    least = len(first) + len(letters)
    if vocab_size < least:
        msg = (
            f"a vocabulary of {vocab_size} tokens is too small: special tokens and characters need "
            f"{least}; raise --vocab-size"
        )
        raise KerasBertError(msg)
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size, min_frequency=2, special_tokens=first, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    # The trainer made the "##x" pieces special tokens. The new tokenizer treats them as pieces.
    trained = _wordpiece(tokenizer.get_vocab(), lowercase=True)
    trained.add_special_tokens(list(SPECIAL_TOKENS))
    trained.normalizer = tokenizer.normalizer
    return trained


def load_tokenizer(folder: Path, *, clean_links: bool = True) -> Tokenizer:
    """Load a tokenizer from tokenizer.json, or from vocab.txt as published with the first BERTs.

    Args:
        folder: Folder that contains the file.
        clean_links: See `train_tokenizer`. A tokenizer that already cleans links is not changed.

    Returns:
        The tokenizer, without padding or truncation.

    Raises:
        KerasBertError: If there is no readable tokenizer, or it is not one of BERT.
    """
    file, vocabulary = folder / FILE, folder / "vocab.txt"
    check_model_folder(folder)
    try:
        if file.is_file():
            tokenizer = Tokenizer.from_file(str(file))
        elif vocabulary.is_file():
            tokens = vocabulary.read_text(encoding="utf-8").rstrip("\n").split("\n")
            repeated = [token for token, count in Counter(tokens).items() if count > 1]
            if repeated:
                msg = (
                    f"{vocabulary} has {repeated[0]!r} twice: the line number is the token id, so "
                    "each token must occur once; correct the file"
                )
                raise KerasBertError(msg)
            config_file = folder / "tokenizer_config.json"
            config = read_json(config_file, dict[str, Any]) if config_file.is_file() else {}
            tokenizer = _wordpiece(
                {token: i for i, token in enumerate(tokens)},
                lowercase=config.get("do_lower_case", True),
            )
        else:
            msg = (
                f"{folder} has neither tokenizer.json nor vocab.txt: "
                "give another folder with --tokenizer"
            )
            raise KerasBertError(msg)
    except UserError:
        raise
    except Exception as error:  # tokenizers raises plain exceptions
        msg = f"the tokenizer in {folder} cannot be read: {error}"
        raise KerasBertError(msg) from error
    missing = [token for token in SPECIAL_TOKENS if tokenizer.token_to_id(token) is None]
    pad_id = tokenizer.token_to_id("[PAD]")
    if missing or pad_id != 0:
        fault = f"lacks {', '.join(missing)}" if missing else f"has [PAD] at id {pad_id}, not 0"
        msg = (
            f"the tokenizer in {folder} {fault}: "
            "give the folder of a BERT tokenizer with --tokenizer"
        )
        raise KerasBertError(msg)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    if clean_links and _URL not in tokenizer.to_str():
        _clean(tokenizer)
    return tokenizer


def encode(tokenizer: Tokenizer, texts: Iterable[str]) -> Iterator[list[int]]:
    """Yield the token ids of each text, without [CLS] and [SEP]."""
    tokenizer.encode_special_tokens = True  # "[SEP]" in a text is ordinary text
    source = iter(texts)
    with progress("tokenizing", unit="texts") as advance:
        while chunk := list(islice(source, _CHUNK)):
            for encoding in tokenizer.encode_batch_fast(chunk, add_special_tokens=False):
                yield encoding.ids
            advance(len(chunk))


def token_id(tokenizer: Tokenizer, token: str) -> int:
    """Return the id of a token.

    Raises:
        KeyError: If the tokenizer does not have the token.
    """
    found = tokenizer.token_to_id(token)
    if found is None:
        raise KeyError(token)
    return found


def special_pair(tokenizer: Tokenizer) -> tuple[int, int]:
    """Return the ids of [CLS] and [SEP]."""
    return token_id(tokenizer, "[CLS]"), token_id(tokenizer, "[SEP]")


def _wordpiece(vocabulary: dict[str, int], *, lowercase: bool) -> Tokenizer:
    tokenizer = Tokenizer(
        models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100)  # noqa: S106
    )
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def _clean(tokenizer: Tokenizer) -> None:
    """Replace links and @names with words, before all other normalization."""
    steps = [normalizers.Replace(_LINK, _URL), normalizers.Replace(_NAME, _USER)]
    tokenizer.normalizer = normalizers.Sequence([*steps, tokenizer.normalizer])


def save_for_hugging_face(tokenizer: Tokenizer, target: Path) -> None:
    """Write a tokenizer in the format of `AutoTokenizer.from_pretrained`.

    The written tokenizer adds [CLS] and [SEP] to each text.

    Args:
        tokenizer: The tokenizer. It is modified: it gets a post-processor.
        target: Folder to write to.
    """
    first, last = ((token, token_id(tokenizer, token)) for token in ("[CLS]", "[SEP]"))
    tokenizer.post_processor = processors.BertProcessing(last, first)
    tokenizer.save(str(target / FILE))
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **dict(zip(names, SPECIAL_TOKENS, strict=True)),
    }
    (target / "tokenizer_config.json").write_text(
        json.dumps(config, indent=2) + "\n", encoding="utf-8"
    )
