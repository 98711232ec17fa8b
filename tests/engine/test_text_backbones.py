"""Runs with text networks that are no BERT."""

from pathlib import Path

import pytest
import torch

from benchmarks.tiny_texts import tiny_config
from engine.predict import open_run
from engine.prediction.texts import TextPredictor
from run_folders.run_folder import RunFolder
from tests.conftest import Train
from tests.lightning_modules.text_types import save_tiny, save_tokenizer


def write_table(folder: Path, split: str, length: int) -> None:
    """Write 40 distinct texts of `length` tokens and their labels."""
    (folder / "words").mkdir(parents=True, exist_ok=True)
    last = {"train": "w60", "test": "w61"}[split]
    rows = [f"w{i + 2} {'w5 ' * (length - 2)}{last},{'ab'[i % 2]}" for i in range(40)]
    (folder / "words" / f"{split}.csv").write_text("\n".join(["text,label", *rows]))


def overrides(data: Path, backbone: Path, *more: str) -> list[str]:
    return [
        "data=text", "data.folder=words", "data.classes=[a,b]", "data.num_classes=2",
        "data.files={train: train.csv, val: null, test: test.csv}", f"paths.data_dir={data}",
        "model=text_classifier", f"model.backbone={backbone}", f"data.tokenizer={backbone}",
        "trainer.max_epochs=1", "trainer.precision=32-true", *more,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("model_type", "limit"),
    [("camembert", 38), ("mpnet", 38), ("longformer", 38), ("luke", 38), ("opt", 40), ("ctrl", 40)],
)
def test_texts_longer_than_the_table_of_positions_are_refused_before_training(
    model_type: str, limit: int, tmp_path: Path, train: Train
) -> None:
    save_tiny(tiny_config(model_type), tmp_path / "network")
    save_tokenizer(tmp_path / "network", pad_token="[PAD]")
    write_table(tmp_path, "train", limit)
    write_table(tmp_path, "test", limit)
    arguments = overrides(tmp_path, tmp_path / "network", "model.pooling=mean")
    assert train(*arguments, "plan=true").code == 0
    write_table(tmp_path, "test", limit + 1)
    ended = train(*arguments, folder=tmp_path / "second")
    assert ended.code == 1
    expected = (
        f"data.max_length: received 128; the backbone reads at most {limit} tokens, "
        f"and a text has {limit + 1}; set data.max_length={limit}"
    )
    assert expected in ended.error
    assert "Traceback" not in ended.err
    assert not (tmp_path / "second" / "checkpoints").exists()
    assert train(*arguments, f"data.max_length={limit}", "plan=true").code == 0


def test_a_decoder_without_padding_token_trains_and_predicts(tmp_path: Path, train: Train) -> None:
    """Cached features change nothing, and a prediction does not depend on its neighbours."""
    save_tiny(tiny_config("gpt2"), tmp_path / "network")
    save_tokenizer(tmp_path / "network")
    write_table(tmp_path, "train", 7)
    write_table(tmp_path, "test", 4)
    arguments = overrides(
        tmp_path, tmp_path / "network", "model.pooling=last", "model.freeze_backbone=true",
        f"cache.dir={tmp_path / 'cache'}",
    )  # fmt: skip
    metrics = []
    for features in ("true", "false"):
        ended = train(*arguments, f"cache.features={features}", folder=tmp_path / features)
        assert ended.code == 0, ended.err
        metrics.append(RunFolder(tmp_path / features).read_json("metrics.json")["test"])
    assert metrics[0] == metrics[1]
    predictor = TextPredictor(open_run(tmp_path / "false"))
    texts = ["w5 w9 w30", "w8", "w5 " * 60]  # the last one is longer than the table of positions
    alone = torch.cat([predictor.predictions([text]) for text in texts])
    torch.testing.assert_close(predictor.predictions(texts), alone, atol=1e-6, rtol=0)


def test_longer_texts_than_the_network_was_made_for_are_reported(
    tmp_path: Path, train: Train
) -> None:
    save_tiny(tiny_config("llama"), tmp_path / "network")
    save_tokenizer(tmp_path / "network")
    write_table(tmp_path, "train", 50)
    write_table(tmp_path, "test", 5)
    ended = train(*overrides(tmp_path, tmp_path / "network", "head=bigru", "plan=true"))
    assert ended.code == 0, ended.err
    assert (
        "data.max_length=128: a text has 50 tokens, and the backbone was made for 40" in ended.err
    )
