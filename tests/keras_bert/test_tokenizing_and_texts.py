"""Vocabularies, cleaning, and files of texts."""

from pathlib import Path

import pandas as pd
import pytest
from tokenizers import Tokenizer
from transformers import BertTokenizer

from datamodules.reading.errors import DataError
from keras_bert.data.texts import read_documents, read_labelled, read_texts
from keras_bert.data.tokenizing import (
    SPECIAL_TOKENS,
    encode,
    load_tokenizer,
    save_for_hugging_face,
    train_tokenizer,
)
from keras_bert.errors import KerasBertError

TEXTS = [
    "Masks help, doctors say!",
    "Wash your hands: https://t.co/Ab1 says @Dr_No",
    "masks and hands and doctors",
] * 3


def encoded_and_decoded(tokenizer: Tokenizer, text: str) -> str:
    return tokenizer.decode(next(encode(tokenizer, [text])))


def test_a_trained_vocabulary_cleans_and_splits() -> None:
    tokenizer = train_tokenizer(TEXTS, 300)
    assert [tokenizer.id_to_token(i) for i in range(5)] == list(SPECIAL_TOKENS)
    assert (
        encoded_and_decoded(tokenizer, "MASKS https://example.org/x?y=1 @someone")
        == "masks url user"
    )
    assert all(
        train_tokenizer(TEXTS, 90).to_str() == train_tokenizer(TEXTS, 90).to_str() for _ in range(5)
    )
    raw = train_tokenizer(TEXTS, 300, clean_links=False)
    assert "http" in encoded_and_decoded(raw, "see https://t.co/Ab1")
    assert tokenizer.normalizer.normalize_str("mail a@b.org, @b") == "mail a@b.org,  user "


def test_a_vocabulary_that_is_too_small_is_rejected() -> None:
    with pytest.raises(
        KerasBertError,
        match="a vocabulary of 5 tokens is too small: special tokens and characters need",
    ):
        train_tokenizer(TEXTS, 5)


def test_saved_cleaning_is_kept_and_not_added_twice(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(TEXTS, 300)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    for clean in (True, False):
        assert load_tokenizer(tmp_path, clean_links=clean).to_str() == tokenizer.to_str()


@pytest.mark.parametrize("lowercase", [True, False])
def test_vocab_txt_is_read_as_bert_reads_it(tmp_path: Path, lowercase: bool) -> None:
    vocabulary = [
        *SPECIAL_TOKENS,
        *"abcdefghijklmnopqrstuvwxyzHM!,",
        "##e",
        "##lp",
        "##asks",
        "hands",
        "##s",
        "Masks",
        "masks",
    ]
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    if not lowercase:
        (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    theirs = BertTokenizer(vocab=str(tmp_path / "vocab.txt"), do_lower_case=lowercase)
    ours = load_tokenizer(tmp_path, clean_links=False)
    text = "Masks help, Hands! Ünï h"
    assert next(encode(ours, [text])) == theirs.encode(text, add_special_tokens=False)


def test_a_saved_tokenizer_is_loaded_by_hugging_face(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(TEXTS, 300)
    (tmp_path / "run").mkdir()
    (tmp_path / "out").mkdir()
    tokenizer.save(str(tmp_path / "run" / "tokenizer.json"))
    save_for_hugging_face(load_tokenizer(tmp_path / "run", clean_links=False), tmp_path / "out")
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert theirs.pad_token_id == 0
    ids = next(encode(tokenizer, [TEXTS[1]]))
    assert theirs(TEXTS[1])["input_ids"] == [theirs.cls_token_id, *ids, theirs.sep_token_id]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "has neither tokenizer.json nor vocab.txt"),
        ({"tokenizer.json": "{"}, "cannot be read"),
        ({"vocab.txt": "[PAD]\n[UNK]\na\n"}, "lacks [CLS], [SEP], [MASK]"),
        ({"vocab.txt": "\n".join(["a", *SPECIAL_TOKENS])}, "has [PAD] at id 1, not 0"),
        ({"vocab.txt": "\n".join([*SPECIAL_TOKENS, "a", "a"])}, "has 'a' twice"),
    ],
)
def test_folders_without_a_bert_tokenizer_are_rejected(
    tmp_path: Path, files: dict[str, str], message: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(KerasBertError) as caught:
        load_tokenizer(tmp_path)
    assert message in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_documents_from_text_and_tables(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\n\n\nthree \n", encoding="utf-8-sig")
    (tmp_path / "b.csv").write_text('tweet,label\n"x, y",1\nNA,0\n')
    files = [str(tmp_path / name) for name in ("a.txt", "b.csv")]
    assert read_documents(files, "tweet") == [["one", "two"], ["three"], ["x, y"], ["NA"]]
    assert list(read_texts(files[1:], "tweet")) == ["x, y", "NA"]
    (tmp_path / "lines.txt").write_bytes(b"one\r\ntwo \n\n")
    assert list(read_texts([str(tmp_path / "lines.txt")], "tweet")) == ["one", "two "]


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_labels_are_the_classes(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"c.{suffix}"
    table = pd.DataFrame({"t": ["p", "q"], "l": [1, 0]})
    if suffix == "jsonl":
        table.to_json(path, orient="records", lines=True)
    elif suffix == "parquet":
        table.to_parquet(path)
    else:
        table.to_csv(path, index=False, sep="\t" if suffix == "tsv" else ",")
    split, classes = read_labelled(str(path), "t", "l")
    found = (list(split.texts), split.labels.tolist(), classes)
    assert found == (["p", "q"], [1, 0], ["0", "1"])
    named, _ = read_labelled(str(path), "t", "l", ["2", "1", "0"])
    assert named.labels.tolist() == [1, 2]


ADVICE = "; fix the file, or remove the row"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.csv", None, "{path} cannot be read: No such file or directory"),
        (
            "a.json",
            b"{}",
            "{path}: cannot read '.json' files; give one of .csv, .tsv, .jsonl, .parquet",
        ),
        (
            "a.csv",
            b"words,label\nx,1\n",
            "{path}: no column 'text'; it has words, label; name another with --text-column or --label-column",
        ),
        ("a.csv", b"text,label\n", "{path}: no row has a label in column 'label'"),
        (
            "a.csv",
            b"text,label\nx,1\n ,0\n",
            "a.csv, row 2 (line 3): column 'text' is empty" + ADVICE,
        ),
        (
            "a.csv",
            b"text,label\nx,1\ny,\n,0\n",
            "a.csv, row 2 (line 3): label '' is none of 0, 1" + ADVICE + " (2 bad rows in all)",
        ),
        ("a.csv", b"text,label\nx,\n", "{path}: no row has a label in column 'label'"),
        (
            "a.csv",
            b'text,label\n"x,1\n',
            "a.csv, row 1 (line 2): a stray quote is never closed; if quotes are part of the "
            "texts, set --quoting none" + ADVICE,
        ),
        (
            "a.csv",
            b"text,label\nx,1\ny,0,2\n",
            "a.csv, row 2 (line 3): has 3 fields where the header has 2" + ADVICE,
        ),
        (
            "a.csv",
            b"text,label\nx,1\n\xff\x81,0\n",
            "a.csv, row 2 (line 3): is not UTF-8: byte 0xFF; if that is wrong, set --encoding NAME"
            + ADVICE,
        ),
        ("a.parquet", b"no", "{path} is not a readable Parquet file"),
    ],
)
def test_unusable_tables_are_rejected(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_labelled(str(tmp_path / name), "text", "label")
    assert str(caught.value).startswith(message.format(path=tmp_path / name))
    assert "\n" not in str(caught.value)
    assert "data." not in str(caught.value).replace(str(tmp_path), "")


def test_rows_within_stray_quotes_are_not_lost(tmp_path: Path) -> None:
    """The quotes pair up, so pandas reads two rows instead of four, without an error."""
    path = tmp_path / "a.csv"
    path.write_text('id,text,label\n1,"masks,real\n2,hands,fake\n3,cure",real\n4,beds,fake\n')
    assert len(pd.read_csv(path)) == 2
    with pytest.raises(
        DataError, match=r"a\.csv, row 1 \(line 2\): a stray quote swallows the 2 lines that follow"
    ) as caught:
        read_labelled(str(path), "text", "label")
    assert "\n" not in str(caught.value)
    path.write_text("text,label\n")
    with pytest.raises(DataError, match=r"a\.csv has a header and no rows; add rows to it$"):
        read_labelled(str(path), "text", "label", ["fake", "real"])


def test_unusable_texts_are_rejected(tmp_path: Path) -> None:
    a, b, c = (tmp_path / name for name in ("a.txt", "b.txt", "c.csv"))
    a.write_bytes(b"fine\nbad \xff\x81\n")
    b.write_text("\n\n")
    c.write_text("words,n\n")
    for read in (read_documents, read_texts):
        with pytest.raises(DataError, match=r"a\.txt, row 2 \(line 2\): is not UTF-8: byte 0xFF"):
            read([str(a)], "text")
        with pytest.raises(DataError, match=r"b\.txt holds no text"):
            read([str(b)], "text")
        with pytest.raises(
            DataError,
            match=r"c\.csv: no column 'text'; it has words, n; name another with --text-column$",
        ):
            read([str(c)], "text")
        with pytest.raises(DataError, match=r"c\.csv holds no text"):
            read([str(c)], "words")
        with pytest.raises(DataError, match=r"none\.txt cannot be read: No such file"):
            read([str(tmp_path / "none.txt")], "text")
    b.write_text("one\n\ntwo\n")
    with pytest.raises(DataError, match=r"b\.txt, row 2: the line is empty"):
        read_texts([str(b)], "text")


def test_special_tokens_in_a_text_are_ordinary_text() -> None:
    tokenizer = train_tokenizer(TEXTS, 300)
    assert not {0, 2, 3, 4} & set(next(encode(tokenizer, ["masks [SEP] hands [PAD] [MASK]"])))
