"""The command `describe_data`: what it prints, the config that it writes, and training with it."""

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.conftest import Ended, Train, made_rows, write_csv
from tests.datamodules.test_describing_texts import odd_table
from tests.datamodules.test_segmentation import NETWORK
from tests.images import image_folder
from tests.masks import segmentation_folder
from thaw.commands.describe_data import main

Describe = Callable[..., Ended]


@pytest.fixture
def describe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Describe:
    """Call the command in `tmp_path`."""
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> Ended:
        capsys.readouterr()
        code = main(words)
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err, tmp_path)

    return call


def test_what_is_printed_for_a_table(describe: Describe, tmp_path: Path) -> None:
    odd_table(tmp_path / "odd.csv")
    ended = describe("odd.csv", "data.label_column=Mood")
    assert ended.code == 0, ended.err
    assert not ended.err
    for text in (
        "odd.csv: texts with one label each",
        "CP1252, delimiter ';', quoting csv",
        "odd.csv is not UTF-8; it is read as Windows-1252",
        "  text_column: Message text  # the columns of odd.csv: the only column of texts",
        "  python train.py data=text data.folder=odd.csv data.label_column=Mood "
        "model.backbone=bert-base-uncased\n",
        "  bert-base-uncased is the default and downloaded once; model.backbone can be another",
    ):
        assert text in ended.out
    assert not (tmp_path / "configs").exists()


def test_every_key_of_the_data_can_be_given(describe: Describe, tmp_path: Path) -> None:
    odd_table(tmp_path / "odd.csv", encoding="utf-8")
    words = ("odd.csv", "data.label_column=Mood", "-o", "configs/data/odd.yaml")
    ended = describe(*words)
    command = "  python train.py data=odd model.backbone=bert-base-uncased"
    mend = "2 samples cannot be used and stop the run: correct the data, or leave out what is bad:"
    assert f"{command}\n  {mend}\n{command} data.on_bad_rows=skip\n" in ended.out
    skip = ("data.on_bad_rows=skip", "data.cleaning.html=true", "data.max_length=7")
    ended = describe(*words, "--force", *skip)
    assert ended.code == 0, ended.err
    assert "training leaves them out and lists them (data.on_bad_rows=skip)" in ended.out
    assert "longer than 7" in ended.out
    assert "mend the data" not in ended.out
    written = yaml.safe_load((tmp_path / "configs/data/odd.yaml").read_text())
    assert written["on_bad_rows"] == "skip"
    assert (written["cleaning"], written["max_length"]) == ({"html": True}, 7)


def test_a_question_is_printed_and_no_config_is_written(describe: Describe, tmp_path: Path) -> None:
    odd_table(tmp_path / "odd.csv", encoding="utf-8")
    ended = describe("odd.csv")
    assert ended.code == 0
    assert "Not clear\n  odd.csv: which column has the labels?" in ended.out
    typed = "  python scripts/describe_data.py odd.csv"
    assert f"answer with one of\n{typed} data.label_column=Author\n" in ended.out
    assert "  or with --kind, if these are not texts with one label each" in ended.out
    assert "--kind," not in describe("odd.csv", "--kind", "text").out
    ended = describe("odd.csv", "-o", "configs/data/odd.yaml")
    assert ended.code == 1
    assert "-o configs/data/odd.yaml: not written, as a setting is open" in ended.error
    assert not (tmp_path / "configs").exists()


def test_the_command_that_answers_can_be_typed(describe: Describe, tmp_path: Path) -> None:
    rows = [(f"wash your hands now {i}", "ab"[i % 2], "xy"[i // 30]) for i in range(60)]
    write_csv(tmp_path / "t.csv", rows, ("text", "Kategorie (geprüft)", "No's, 1"))
    with (tmp_path / "t.csv").open("a") as file:
        file.write("one cell\n")
    printed = describe("t.csv").out
    assert "Not readable (1)\n  t.csv, row 61 (line 62): " in printed
    lines = [
        line for line in printed.splitlines() if " data.label_column=" in line or "'data.l" in line
    ]
    assert lines[0].endswith(""" t.csv 'data.label_column="Kategorie (geprüft)"'""")
    for line in lines:
        ended = describe(*shlex.split(line)[2:])
        assert "Classes (2)" in ended.out


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["none"], "none: no such file or folder in "),
        (["t.csv", "--kind", "txt"], "--kind: received 'txt'; did you mean text?"),
        (["t.csv", "data.textcolumn=x"], "did you mean text_column or"),
        (["t.csv", "data.label_column"], "give data.KEY=VALUE"),
        (["t.csv", "--max-length", "0"], "--max-length: received 0; give 1 or more"),
        (["t.csv", "-o", "a b.yaml"], "a name of letters, digits, _ and - is needed"),
        (["t.csv", "-o", "t.csv"], "which ends with .yaml"),
        (["t.csv", "-o", "configs/data/text.yaml"], "Thaw has a config data=text already"),
        (["t.csv", "data.text_column=nothing"], "no column 'nothing'"),
    ],
)
def test_faults_are_one_line(
    words: list[str], error: str, describe: Describe, tmp_path: Path
) -> None:
    write_csv(tmp_path / "t.csv", made_rows(20, 1))
    ended = describe(*words)
    assert ended.code == 1 or "no column" in error
    text = ended.error or ended.out
    assert error in text
    assert "Traceback" not in ended.err
    assert len(ended.err.splitlines()) <= 1


def test_an_existing_config_is_replaced_only_by_force(describe: Describe, tmp_path: Path) -> None:
    write_csv(tmp_path / "t.csv", made_rows(20, 1))
    (tmp_path / "my.yaml").write_text("x: 1\n")
    ended = describe("t.csv", "-o", "my.yaml")
    assert (ended.code, (tmp_path / "my.yaml").read_text()) == (1, "x: 1\n")
    assert "my.yaml: the file exists" in ended.error
    ended = describe("t.csv", "-o", "my.yaml", "--force")
    assert ended.code == 0
    # It is in no folder of configs, so the command names the data.
    assert "python train.py data=text data.folder=t.csv" in ended.out
    assert (tmp_path / "my.yaml").read_text() == (
        "# Texts with one label each. Written by describe_data from t.csv.\n"
        "# What is not stated here is as in data=text.\n"
        "defaults: [text, _self_]\n"
        f"folder: {tmp_path}\n"
        "files:\n"
        "  train: t.csv  # data.folder\n"
        "  val: null  # data.folder is a single table: drawn from train\n"
        "  test: null  # data.folder is a single table: drawn from train\n"
        "label_column: label  # the columns of t.csv: its name\n"
        "text_column: tweet  # the columns of t.csv: the only column of texts\n"
        "classes: [fake, real]  # column 'label' of t.csv\n"
        "test_fraction: 0.1  # no test split: the usual part of train\n"
        "num_classes: 2\n"
    )


def _tags(folder: Path) -> str:
    rows = [(f"wash hands now {i}", "joy;${fear}" if i % 2 else "${fear}") for i in range(40)]
    write_csv(folder / "set" / "t.csv", rows, ("text", "tags"))
    return "set/t.csv"


def _switches(folder: Path) -> str:
    rows = [(f"wash hands now {i}", str(i % 2), str(int(i % 3 > 0))) for i in range(40)]
    write_csv(folder / "set" / "t.csv", rows, ("text", "joy", "no"))
    return "set/t.csv"


def _tagged_images(folder: Path) -> str:
    image_folder(folder / "set", {"pictures": 8})
    images = sorted((folder / "set").glob("*/*/*"))
    rows = [
        (str(path.relative_to(folder / "set")), "a;b" if i % 2 else "b")
        for i, path in enumerate(images)
    ]
    write_csv(folder / "set" / "tags.csv", rows, ("image", "tags"))
    return "set"


def _images(folder: Path) -> str:
    image_folder(folder / "set", {"train": 4})
    return "set"


def _masks(folder: Path) -> str:
    segmentation_folder(folder / "set", {"train": 6, "val": 2, "test": 2})
    return "set"


@pytest.mark.parametrize(
    ("make", "starts", "overrides"),
    [
        (_tags, ("config", "command"), ["model.backbone={backbone}"]),
        (_switches, ("command",), ["model.backbone={backbone}"]),
        (
            _tagged_images,
            ("command",),
            ["model.backbone={{architecture: resnet10t}}", "data.size=32"],
        ),
        (_images, ("config",), ["model.backbone={{architecture: resnet10t}}", "data.size=32"]),
        (
            _masks,
            ("config",),
            [f"model.backbone={NETWORK}".replace("{", "{{").replace("}", "}}"), "data.size=32"],
        ),
    ],
)
def test_the_config_of_each_kind_is_valid(
    make: Callable[[Path], str],
    starts: tuple[str, ...],
    overrides: list[str],
    describe: Describe,
    train: Train,
    tmp_path: Path,
    tiny_backbone: Path,
) -> None:
    """A run plans with the written config, or with the command that needs no config."""
    path = make(tmp_path)
    printed = describe(path).out.splitlines()
    command = shlex.split(next(line for line in printed if " model.backbone=" in line))
    ended = describe(path, "-o", "configs/data/own.yaml")
    assert ended.code == 0, ended.err
    assert "  python train.py data=own model.backbone=" in ended.out
    given = [word.format(backbone=tiny_backbone) for word in overrides]
    words = {"config": ["data=own"], "command": command[2:]}
    for start in starts:
        planned = train(*words[start], *given, "plan=true")
        assert planned.code == 0, planned.err


def test_a_run_with_the_written_config(
    describe: Describe, train: Train, tmp_path: Path, tiny_backbone: Path
) -> None:
    odd_table(tmp_path / "odd.csv", encoding="utf-8")
    ended = describe("odd.csv", "data.label_column=Mood", "-o", "configs/data/odd.yaml")
    assert ended.code == 0, ended.err
    ended = train(
        "data=odd", f"model.backbone={tiny_backbone}", "data.on_bad_rows=skip",
        "trainer.max_epochs=1",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    assert (ended.folder / "report.html").is_file()
