"""Progress of long steps."""

import logging
import re
from pathlib import Path

import pytest

from datamodules.reading import progress
from datamodules.text import TextDataModule
from keras_bert.data.texts import read_documents, read_labelled, read_texts
from keras_bert.data.tokenizing import encode, train_tokenizer


class Clock:
    """A clock that moves on by one step a reading."""

    def __init__(self, step: float) -> None:
        self.now, self.step = 0.0, step

    def monotonic(self) -> float:
        self.now += self.step
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock(1.0)
    monkeypatch.setattr(progress, "time", clock)
    return clock


@pytest.mark.usefixtures("clock")
def test_a_line_every_thirty_seconds(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert list(progress.tracked(range(100), "reading a.csv", 100)) == list(range(100))
    assert caplog.messages == [
        "reading a.csv: 30 of 100 rows, 1/s, 70 s left",
        "reading a.csv: 60 of 100 rows, 1/s, 40 s left",
        "reading a.csv: 90 of 100 rows, 1/s, 10 s left",
    ]


def test_a_short_step_shows_nothing(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], clock: Clock
) -> None:
    clock.step = 0.001
    caplog.set_level(logging.INFO)
    list(progress.tracked(range(100), "reading a.csv"))
    assert not caplog.messages
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("clock")
def test_a_bar_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress.progress("reading [b]a.csv", 100, "files") as advance:
        for _ in range(10):
            advance(5)
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", capfd.readouterr().err)
    assert "reading [b]a.csv" in shown
    assert "50 of 100 files" in shown


@pytest.mark.usefixtures("clock")
def test_another_process_of_the_machine_draws_no_bar(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("LOCAL_RANK", "1")
    list(progress.tracked(range(10), "reading a.csv"))
    assert capfd.readouterr().err == ""


def test_long_steps_of_both_halves_report_their_progress(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, clock: Clock
) -> None:
    clock.step = progress.LOG_EVERY
    caplog.set_level(logging.INFO)
    for name in ("train.csv", "val.csv", "test.csv"):
        rows = [f"{name} {row},{'ab'[row % 2]}\n" for row in range(9)]
        (tmp_path / name).write_text("text,label\n" + "".join(rows))
    files = {"train": "train.csv", "val": "val.csv", "test": "test.csv"}
    data = TextDataModule(
        ".", {"vocab_size": 99}, files, classes=["a", "b"], num_classes=2, data_dir=str(tmp_path)
    )
    data.setup()
    assert data.tokenized
    data.describe()
    documents = read_documents([str(tmp_path / "train.csv")], "text")
    read_texts([str(tmp_path / "val.csv")], "text")
    read_labelled(str(tmp_path / "test.csv"), "text", "label")
    texts = [text for document in documents for text in document]
    assert len(list(encode(train_tokenizer(texts, 99), texts))) == 9
    steps = [line.partition(":")[0] for line in caplog.messages]
    thaw = steps[: steps.index("fingerprint of test") + 9]
    assert set(thaw) == {
        *(f"reading {name}" for name in files.values()),
        "tokenizing",
        *(f"fingerprint of {split}" for split in files),
    }
    assert list(dict.fromkeys(steps[len(thaw) :])) == [
        "reading train.csv", "reading val.csv", "reading test.csv", "tokenizing",
    ]  # fmt: skip
