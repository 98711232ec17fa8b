"""WordPiece tokenizers: trained on texts, or loaded from a folder. The cleaning is part of the tokenizer."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

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

from keras_bert.errors import KerasBertError

FILE = "tokenizer.json"
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_URL, _USER = " url ", " user "
_LINK, _NAME = Regex(r"(?:https?://|www\.)\S+"), Regex(r"(?<![\w.@])@\w+")


def train_tokenizer(
    texts: Iterable[str], vocab_size: int, *, clean_links: bool = True
) -> Tokenizer:
    """Learn a lower-case WordPiece vocabulary; [PAD] is token 0. The same texts give the same vocabulary.

    Args:
        texts: The training texts, and no others.
        vocab_size: Most tokens; pieces seen once are left out.
        clean_links: Whether links and @names count as the words "url" and "user".

    Returns:
        The tokenizer.

    Raises:
        KerasBertError: If the vocabulary cannot hold the characters and the special tokens.
    """
    tokenizer = _wordpiece({}, lowercase=True)
    if clean_links:
        _clean(tokenizer)
    texts = list(texts)
    letters = sorted(
        set("".join(tokenizer.normalizer.normalize_str(text) for text in texts)) - {" "}
    )
    # Numbers of "##x" would follow the order of a hash map, and break ties between merges
    # differently in each process.
    first = [*SPECIAL_TOKENS, *(f"##{letter}" for letter in letters)]
    least = len(first) + len(letters)
    if vocab_size < least:
        msg = f"a vocabulary of {vocab_size} tokens has no room: the characters alone need {least}; raise --vocab-size"
        raise KerasBertError(msg)
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size, min_frequency=2, special_tokens=first, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    trained = _wordpiece(tokenizer.get_vocab(), lowercase=True)  # to which "##x" is nothing special
    trained.add_special_tokens(list(SPECIAL_TOKENS))
    trained.normalizer = tokenizer.normalizer
    return trained


def load_tokenizer(folder: Path, *, clean_links: bool = True) -> Tokenizer:
    """Read tokenizer.json, or vocab.txt as the first BERTs have it.

    Args:
        folder: Where it lies.
        clean_links: See `train_tokenizer`; a tokenizer saved by this module keeps its own.

    Returns:
        The tokenizer, without padding or truncation.

    Raises:
        KerasBertError: If there is none, or it lacks a special token.
    """
    file, vocabulary = folder / FILE, folder / "vocab.txt"
    try:
        if file.is_file():
            tokenizer = Tokenizer.from_file(str(file))
        elif vocabulary.is_file():
            words = vocabulary.read_text(encoding="utf-8").rstrip("\n").split("\n")
            twice = [word for word, count in Counter(words).items() if count > 1]
            if twice:
                msg = f"{vocabulary} has {twice[0]!r} twice: numbers of tokens are lines of this file; mend it"
                raise KerasBertError(msg)
            stated = folder / "tokenizer_config.json"
            config = json.loads(stated.read_text(encoding="utf-8")) if stated.is_file() else {}
            tokenizer = _wordpiece(
                {word: i for i, word in enumerate(words)},
                lowercase=config.get("do_lower_case", True),
            )
        else:
            msg = f"{folder} has neither tokenizer.json nor vocab.txt: give another folder with --tokenizer"
            raise KerasBertError(msg)
    except KerasBertError:
        raise
    except Exception as error:  # tokenizers raises plain exceptions
        msg = f"the tokenizer in {folder} cannot be read: {error}"
        raise KerasBertError(msg) from error
    lacking = [token for token in SPECIAL_TOKENS if tokenizer.token_to_id(token) is None]
    if lacking or tokenizer.token_to_id("[PAD]") != 0:
        fault = f"lacks {', '.join(lacking)}" if lacking else "has [PAD] elsewhere than at 0"
        msg = f"the tokenizer in {folder} {fault}: it is not BERT's; give another folder with --tokenizer"
        raise KerasBertError(msg)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    if clean_links and _URL not in tokenizer.to_str():
        _clean(tokenizer)
    return tokenizer


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Numbers of each text's tokens, without [CLS] and [SEP]."""
    tokenizer.encode_special_tokens = True  # "[SEP]" in a text is no end of it
    return [
        encoding.ids
        for encoding in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    ]


def token_id(tokenizer: Tokenizer, token: str) -> int:
    """Number of a token that the tokenizer has."""
    number = tokenizer.token_to_id(token)
    if number is None:
        raise KeyError(token)
    return number


def _wordpiece(vocabulary: dict[str, int], *, lowercase: bool) -> Tokenizer:
    tokenizer = Tokenizer(
        models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100)  # noqa: S106
    )
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def _clean(tokenizer: Tokenizer) -> None:
    """Put words in the place of links and names, before all else."""
    steps = [normalizers.Replace(_LINK, _URL), normalizers.Replace(_NAME, _USER)]
    tokenizer.normalizer = normalizers.Sequence([*steps, tokenizer.normalizer])


def save_for_hugging_face(tokenizer: Tokenizer, target: Path) -> None:
    """Write a tokenizer so that `AutoTokenizer.from_pretrained` reads it, [CLS] and [SEP] around each text.

    Args:
        tokenizer: The tokenizer; it changes.
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
