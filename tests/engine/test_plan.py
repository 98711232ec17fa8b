"""The plan has the right numbers, and nothing is trained."""

from pathlib import Path

from run_folders.run_folder import RunFolder
from tests.conftest import SAMPLE, Train

BERT_BASE = "{model_type: bert, vocab_size: 30522, hidden_size: 768, num_hidden_layers: 12, num_attention_heads: 12, intermediate_size: 3072}"


def test_bert_base_frozen_under_a_bigru_has_the_published_counts(
    train: Train, covid_dir: Path, tiny_backbone: Path
) -> None:
    ended = train(
        "experiment=bert_bigru_feature", f"model.backbone={BERT_BASE}", f"data.tokenizer={tiny_backbone}",
        f"paths.data_dir={covid_dir}", "trainer.precision=32-true", "plan=true",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    lines = {
        line.split("│")[1].strip(): [cell.strip() for cell in line.split("│")[2:-1]]
        for line in ended.out.splitlines()
        if "│" in line
    }
    assert lines["features"] == ["108,891,648", "0", "eval", "-", "never"]
    assert lines["embeddings"] == ["23,837,184", "0", "eval", "-", "never"]
    assert lines["encoder"] == ["85,054,464", "0", "eval", "-", "never"]
    assert lines["gru"] == ["689,664", "689,664", "train", "0.001", "0"]
    assert lines["output"] == ["257", "257", "train", "0.001", "0"]
    assert lines["total"][:2] == ["109,581,569", "689,921"]
    assert "never trained: 108,891,648 parameters" in ended.out
    assert "batches per epoch: 2" in ended.out
    assert "precision: 32-true; device: 1 x cpu" in ended.out
    assert not ended.folder.exists()


def test_a_run_saves_its_plan(train: Train) -> None:
    ended = train(*SAMPLE, "trainer.max_epochs=1", "model.freeze_backbone=true")
    plan = RunFolder(ended.folder).read_json("plan.json")
    assert plan["parameters"] == RunFolder(ended.folder).read_json("metrics.json")["parameters"]
    assert [row["mode"] for row in plan["rows"] if row["depth"] == 0] == ["eval", "train"]
    assert plan["batches_per_epoch"] == 3
    assert plan["samples"] == {"train": 96, "val": 32, "test": 40}
    assert plan["precision"] == "32-true"


def test_plan_does_not_change_an_existing_folder(train: Train) -> None:
    folder = train(*SAMPLE, "trainer.max_epochs=1").folder
    before = {
        path: path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "train.log"
    }
    assert train(*SAMPLE, "plan=true").code == 0
    assert {
        path: path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "train.log"
    } == before
