"""The plan has the right numbers, and nothing is trained."""

from pathlib import Path

import pytest
from rich.console import Console

from engine.backbone_source import BackboneSource, backbone_text
from engine.plan import print_plan
from reports.page import write_report
from run_folders.errors import truncation
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
    assert plan["groups"] == {}
    largest = RunFolder(ended.folder).read_json("provenance.json")["data"]["train"]["largest_class"]
    assert plan["largest_class"] == largest
    text = f"train 96, val 32, test 40; largest class of train: {largest['name']} "
    assert f"samples: {text}{largest['share']:.1%}" in ended.out
    assert f"backbone: {plan['backbone']}" in ended.out
    assert plan["backbone"].endswith("(random weights)")
    assert plan["precision"] == "32-true"


def test_groups_and_the_largest_class_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    plan = {
        "rows": [], "parameters": {"total": 0, "trainable": 0}, "stages": [], "backbone": "b[1]",
        "samples": {"train": 720, "val": 80, "test": 100}, "group_column": "Kunde", "blocks": [],
        "groups": {"train": 181, "val": 20, "test": 24},
        "largest_class": {"name": "falsch", "share": 0.546}, "formats": {}, "truncated": {},
        "padding_share": None, "max_epochs": 1, "max_steps": -1, "batches_per_epoch": 0, "overfit_batches": 0, "precision": "32-true",
        "device": "1 x cpu",
    }  # fmt: skip
    print_plan(plan, Console(width=120))
    printed = capsys.readouterr().out
    assert "backbone: b[1]\n" in printed
    samples = "train 720, val 80, test 100; largest class of train: falsch 54.6%"
    assert f"samples: {samples}\ngrouped by Kunde: train 181, val 20, test 24 groups\n" in printed


def test_the_backbone_in_words() -> None:
    source = BackboneSource({}, {}, {}, {"epoch": 3})
    found = [
        backbone_text({"backbone": "bert-base-uncased"}, None),
        backbone_text({"backbone": "resnet18", "weights": "w.pth"}, None),
        backbone_text({"backbone": "runs/a"}, source),
        backbone_text({"backbone": {"architecture": "resnet10t"}}, None),
        backbone_text({"backbone": {"_target_": "birds.Net"}}, None),
        backbone_text({}, None),
    ]
    assert found == [
        "bert-base-uncased (pretrained)",
        "resnet18 (weights: w.pth)",
        "runs/a (a finished run, epoch 3)",
        "resnet10t (random weights)",
        "birds.Net",
        None,
    ]


def test_truncated_texts_are_named_in_plan_provenance_and_page(train: Train) -> None:
    ended = train(*SAMPLE, "trainer.max_epochs=1", "data.max_length=24")
    folder = RunFolder(ended.folder)
    data = folder.read_json("provenance.json")["data"]
    plan = folder.read_json("plan.json")
    assert plan["max_length"] == data["train"]["max_length"] == 24
    for split, total in (("train", 96), ("val", 32), ("test", 40)):
        count = data[split]["truncated"]
        assert 0 < count < total
        assert plan["truncated"][split] == count
        text = f"{count} of {total} texts are longer than 24 tokens ({100 * count / total:.1f} %)"
        assert f"{split}: {text} and cut off there" in ended.out
        assert text in folder.report.read_text(encoding="utf-8")
    assert data["train"]["tokens"] > data["train"]["unknown_tokens"] == 0


def test_texts_that_are_read_to_their_ends_are_not_mentioned(train: Train) -> None:
    ended = train(*SAMPLE, "trainer.max_epochs=1", "data.max_length=64")
    folder = RunFolder(ended.folder)
    assert folder.read_json("plan.json")["truncated"] == {"train": 0, "val": 0, "test": 0}
    assert "tokens (" not in ended.out
    assert "cut off" not in folder.report.read_text(encoding="utf-8")
    origin = folder.read_json("provenance.json")
    for facts in origin["data"].values():  # as before these facts were recorded
        for name in ("truncated", "max_length", "tokens", "unknown_tokens", "padded_tokens"):
            _ = facts.pop(name, None) if isinstance(facts, dict) else None
    folder.write_json("provenance.json", origin)
    assert "sha256" in write_report(folder.path).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("count", "total", "text"),
    [
        (37, 6420, "37 of 6,420 texts are longer than 128 tokens (0.6 %)"),
        (1, 6420, "1 of 6,420 texts is longer than 128 tokens (less than 0.1 %)"),
        (5, 5, "5 of 5 texts are longer than 128 tokens (100.0 %)"),
    ],
)
def test_the_sentence_about_truncated_texts(count: int, total: int, text: str) -> None:
    assert truncation(count, total, 128) == text


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


def test_a_low_rate_for_random_weights_is_reported(train: Train, tmp_path: Path) -> None:
    (tmp_path / "file").touch()  # a plan deletes the folders that are empty
    line = (
        "model.backbone_lr=2e-05 is a rate for pretrained weights, and this backbone has random "
        "ones; try 1e-3"
    )
    assert line in train(*SAMPLE, "model.backbone_lr=2e-5", "plan=true").err
    for other in ("model.backbone_lr=1e-3", "model.freeze_backbone=true"):
        assert "pretrained weights" not in train(*SAMPLE, other, "plan=true").err
