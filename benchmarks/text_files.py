"""Seconds and memory until a table of texts is ready to train on: Thaw against pandas.

    python -m benchmarks.text_files [--texts 1000000] [--repetitions 1] [--tokenizer FOLDER]

Writes a CSV file of synthetic texts of about 55 tokens into a temporary folder. Thaw reads, checks,
cleans and tokenises it, and computes the digests of provenance.json. The baseline reads it with
pandas and tokenises it with the tokenizers library into one array of ids and one of lengths.
"""

import argparse
import csv
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.measuring import alternate, setting
from benchmarks.memory import peak_memory
from benchmarks.rows import Goal, Row, Side, arguments, command, ratio_goals
from datamodules.samples import sample_text
from datamodules.text import TextDataModule
from datamodules.texts.tokenizing import TextTokenizer, load_tokenizer, vocabulary_tokenizer

_TIMES = 1.5  # the most time and memory that Thaw may take, in multiples
_SENTENCES, _CHUNK, _MAX_LENGTH = 4, 10_000, 128


def write_texts(folder: Path, count: int) -> list[str]:
    """Write train.csv with `count` texts and a test.csv of ten; return some texts.

    A tenth of the texts has quotes, delimiters and characters outside of ASCII.
    """
    sentences = [text for text, _ in sample_text(20_000, seed=1)]
    rng = np.random.default_rng(0)
    for name, rows in (("train", count), ("test", 10)):
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["id", "text", "label"])
            for row in range(rows):
                chosen = rng.integers(len(sentences), size=_SENTENCES)
                text = " ".join(sentences[k] for k in chosen)
                odd = f'"{text}", naïve \N{EN DASH} \N{THUMBS UP SIGN}' if row % 10 == 0 else text
                writer.writerow([f"{name}{row}", f"{odd} {row}", ("fake", "real")[row % 2]])
    return sentences


def read_with_thaw(folder: Path, tokenizer: TextTokenizer) -> TextDataModule:
    """Read and tokenise as a run does before training."""
    data = TextDataModule(
        folder=".",
        files={"train": "train.csv", "val": "test.csv", "test": "test.csv"},
        tokenizer="restored",
        cleaning={"demojize": True},
        classes=["fake", "real"],
        num_classes=2,
        data_dir=str(folder),
        id_column="id",
        max_length=_MAX_LENGTH,
    )
    data.restored = tokenizer
    data.setup()
    data.describe()
    return data


def read_with_pandas(folder: Path, tokenizer: TextTokenizer) -> tuple[object, object]:
    """Read with pandas and tokenise in chunks; return ids and lengths."""
    texts = pd.read_csv(folder / "train.csv", dtype=str, keep_default_na=False)["text"].tolist()
    tokenizer.backend.no_padding()
    tokenizer.backend.enable_truncation(_MAX_LENGTH)
    ids, lengths = [], []
    for start in range(0, len(texts), _CHUNK):
        found = [
            each.ids for each in tokenizer.backend.encode_batch_fast(texts[start : start + _CHUNK])
        ]
        lengths += [len(each) for each in found]
        ids.append(np.concatenate([np.asarray(each, np.int32) for each in found]))
    return np.concatenate(ids), np.asarray(lengths)


def measure(given: argparse.Namespace) -> list[Row]:
    """Measure both sides on one file."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sentences = write_texts(folder, given.texts)
        tokenizer = (
            load_tokenizer(given.tokenizer)
            if given.tokenizer
            else vocabulary_tokenizer(sentences, 8_000)
        )
        tokens = int(read_with_thaw(folder, tokenizer).tokenized["train"].lengths.sum())
        work = {
            "Thaw": lambda: read_with_thaw(folder, tokenizer),
            "default": lambda: read_with_pandas(folder, tokenizer),
        }
        # Before the times: pandas leaves a fragmented heap, in which Thaw would need more pages.
        memory_of = {key: peak_memory(run, torch.device("cpu")) for key, run in work.items()}
        times = alternate(work, given.repetitions)
        sides = {key: Side(times[key].seconds, memory=memory_of[key]) for key in work}
    ids = 4 * tokens + 8 * given.texts
    memory = Goal(
        "times the memory of the ids", (sides["Thaw"].memory or 0) / ids, _TIMES, less=True
    )
    return [
        Row(
            "S14",
            f"{given.texts:,} texts of a CSV file, {tokens:,} tokens, read and tokenised; "
            "default: pandas and tokenizers",
            sides,
            (*ratio_goals(sides, ("default", 1 / _TIMES, 1.0)), memory),
            setting("torch", "tokenizers", "pandas", "numpy"),
        )
    ]


if __name__ == "__main__":
    parser = arguments(__doc__, repetitions=1, on_gpus=False)
    parser.add_argument("--texts", type=int, default=1_000_000, help="rows (default: 1000000)")
    parser.add_argument(
        "--tokenizer", help="folder of a tokenizer (default: one built from the texts)"
    )
    command(parser, measure)
