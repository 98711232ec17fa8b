"""WordPiece tokenizers: trained on texts, or loaded from a folder. The cleaning is part of the tokenizer."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from keras_bert.errors import KerasBertError

FILE = "tokenizer.json"
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_LINK, _NAME = Regex(r"(?:https?://|www\.)\S+"), Regex(r"(?<![\w.@])@\w+")


def train_tokenizer(texts: Iterable[str], vocab_size: int, *, clean_links: bool = True) -> Tokenizer:
    """Learn a lower-case WordPiece vocabulary; [PAD] is token 0.

    Args:
        texts: The training texts, and no others.
        vocab_size: Most tokens; pieces seen once are left out.
        clean_links: Whether links and @names count as the words "url" and "user".

    Returns:
        The tokenizer.

    Raises:
        KerasBertError: If the vocabulary cannot hold the special tokens.
    """
    if vocab_size <= len(SPECIAL_TOKENS):
        msg = f"a vocabulary of {vocab_size} has no room beside {len(SPECIAL_TOKENS)} special tokens: give more"
        raise KerasBertError(msg)
    tokenizer = _wordpiece({}, lowercase=True)
    if clean_links:
        _clean(tokenizer)
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size, min_frequency=2, special_tokens=list(SPECIAL_TOKENS), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


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
            words = vocabulary.read_text(encoding="utf-8").splitlines()
            stated = folder / "tokenizer_config.json"
            config = json.loads(stated.read_text(encoding="utf-8")) if stated.is_file() else {}
            tokenizer = _wordpiece({word: i for i, word in enumerate(words)}, lowercase=config.get("do_lower_case", True))
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
    if clean_links and not isinstance(tokenizer.normalizer, normalizers.Sequence):
        _clean(tokenizer)
    return tokenizer


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Numbers of each text's tokens, without [CLS] and [SEP]."""
    return [encoding.ids for encoding in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]


def token_id(tokenizer: Tokenizer, token: str) -> int:
    """Number of a token that the tokenizer has."""
    number = tokenizer.token_to_id(token)
    if number is None:
        raise KeyError(token)
    return number


def _wordpiece(vocabulary: dict[str, int], *, lowercase: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))  # noqa: S106
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def _clean(tokenizer: Tokenizer) -> None:
    """Put words in the place of links and names, before all else."""
    steps = [normalizers.Replace(_LINK, " url "), normalizers.Replace(_NAME, " user ")]
    tokenizer.normalizer = normalizers.Sequence([*steps, tokenizer.normalizer])


def save_for_hugging_face(source: Path, target: Path) -> None:
    """Write a tokenizer so that `AutoTokenizer.from_pretrained` reads it, [CLS] and [SEP] around each text.

    Args:
        source: Folder of the tokenizer.
        target: Folder to write to.

    Raises:
        KerasBertError: If there is no tokenizer in `source`.
    """
    tokenizer = load_tokenizer(source, clean_links=False)
    first, last = ((token, token_id(tokenizer, token)) for token in ("[CLS]", "[SEP]"))
    tokenizer.post_processor = processors.BertProcessing(last, first)
    tokenizer.save(str(target / FILE))
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **dict(zip(names, SPECIAL_TOKENS, strict=True))}
    (target / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
