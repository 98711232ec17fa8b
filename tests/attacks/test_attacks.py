"""Each hostile or damaged input gives the one line that is stated here, and runs no code."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

import run_folders.memory
import run_folders.untrusted
from tests.attacks import inputs as at
from tests.attacks.sound import RUNS, TINY_BERT, TRAIN, Called, call, make_runs

RESTORE = "; restore the file, or remove the run folder"
CONFIG = "; restore it, or train again"
AGAIN = "; take another one, or train again"
DEEP = "[" * 5000 + "]" * 5000


@dataclass(frozen=True)
class Attack:
    """One attack on a run folder.

    Attributes:
        run: The kind of run: text, image, masks, or sweep.
        file: The file that is changed.
        change: The change.
        command: evaluate, predict, report, compare, resume.
        line: The error message; `{file}` is the path of the file, `{run}` that of the folder.
    """

    run: str
    file: str
    change: at.Change
    command: str
    line: str


C, K, M, H = "config.yaml", "checkpoints/best.ckpt", "metrics.json", "history.csv"
P, T = "predictions/test.parquet", "predictions/test_images.parquet"
ATTACKS = {
    # config.yaml
    "config no yaml": Attack("text", C, at.text("a: [1\nb: 2"), "predict", ""),
    "config list": Attack("text", C, at.text("- 1\n"), "predict", ""),
    "config scalar": Attack("text", C, at.text("hello"), "predict", ""),
    "config empty": Attack("text", C, at.text(""), "evaluate", ""),
    "config latin-1": Attack("text", C, at.raw(b"name: \xe9\xff\n"), "predict", ""),
    "config folder": Attack("text", C, at.folder, "predict", ""),
    "config pipe": Attack("text", C, at.pipe, "predict", ""),
    "config billion laughs": Attack("text", C, at.text(at.BOMB), "predict", ""),
    "config bomb in report": Attack("text", C, at.text(at.BOMB), "compare", ""),
    "config alias of itself": Attack("text", C, at.text("a: &a [*a]\n"), "predict", ""),
    "config deep": Attack("text", C, at.text(f"a: {DEEP}"), "predict", ""),
    "config python tag": Attack("text", C, at.text("a: !!python/object/apply:os.system ['id']\n"), "predict", ""),
    "config too large": Attack("text", C, at.text("a: 1\n" + "#" * 2**22), "predict", ""),
    "config month 13": Attack("text", C, at.text("a: 2026-13-01\n"), "compare", ""),
    "config digits": Attack("text", C, at.text(f"a: {'9' * 5000}\n"), "predict", ""),
    "config format": Attack("text", C, at.value("format", 99), "predict", ""),
    "config without data": Attack("text", C, at.without("data"), "predict", ""),
    "config data list": Attack("text", C, at.value("data", [1]), "predict", ""),
    "config without target": Attack("text", C, at.without("model|_target_"), "predict", ""),
    "config os.system": Attack("text", C, at.value("model|_target_", "os.system"), "predict", ""),
    "config lr text": Attack("text", C, at.value("model|lr", "<script>"), "predict", ""),
    "config unknown key": Attack("text", C, at.value("data|shell", "rm"), "evaluate", ""),
    "config classes": Attack("text", C, at.value("data|classes", ["a"]), "predict", ""),
    # best.ckpt
    "checkpoint empty": Attack("text", K, at.raw(b""), "predict", ""),
    "checkpoint text": Attack("text", K, at.text("hello"), "predict", ""),
    "checkpoint cut": Attack("text", K, at.cut, "predict", ""),
    "checkpoint list": Attack("text", K, at.saved([1]), "evaluate", ""),
    "checkpoint of others": Attack("text", K, at.saved({"state_dict": {}}), "predict", ""),
    "checkpoint own part a list": Attack("text", K, at.value("thaw", [1]), "predict", ""),
    "checkpoint format": Attack("text", K, at.value("thaw|format", 99), "predict", ""),
    "checkpoint without backbone": Attack("text", K, at.without("thaw|backbone"), "predict", ""),
    "checkpoint backbone deep": Attack("text", K, at.value("thaw|backbone", DEEP), "predict", ""),
    "checkpoint backbone list": Attack("text", K, at.value("thaw|backbone", "[1]"), "predict", ""),
    "checkpoint backbone huge": Attack("text", K, at.value("thaw|backbone", '{"model_type": "bert", "hidden_size": 9, "num_attention_heads": 2}'), "predict", ""),
    "checkpoint weights text": Attack("text", K, at.value("state_dict", {"a": "b"}), "predict", ""),
    "checkpoint other shapes": Attack("text", K, at.value("state_dict", {"network.x": torch.zeros(3)}), "predict", ""),
    "checkpoint code": Attack("text", K, at.pickled, "predict", ""),
    "checkpoint lying directory": Attack("text", K, at.lying, "predict", ""),
    "checkpoint bomb": Attack("text", K, at.zipped({"a": bytes(2**22)}), "predict", ""),
    "checkpoint folder": Attack("text", K, at.folder, "predict", ""),
    "checkpoint tokenizer": Attack("text", K, at.value("SampleTextDataModule|tokenizer", "{}"), "predict", ""),
    "checkpoint tokenizer list": Attack("text", K, at.value("SampleTextDataModule", [1]), "predict", ""),
    "checkpoint size": Attack("image", K, at.value("SampleImagesDataModule|size", [2**20, 2**20]), "predict", ""),
    "checkpoint size text": Attack("image", K, at.value("SampleImagesDataModule|size", "32"), "evaluate", ""),
    "checkpoint without optimizer": Attack("text", "checkpoints/last.ckpt", at.without("optimizer_states"), "resume", ""),
    "checkpoint loops": Attack("text", "checkpoints/last.ckpt", at.value("loops", {"fit_loop": {}}), "resume", ""),
    # JSON
    "metrics no json": Attack("text", M, at.text('{"val": '), "report", ""),
    "metrics list": Attack("text", M, at.text("[]"), "report", ""),
    "metrics nan": Attack("text", M, at.text('{"a": NaN}'), "report", ""),
    "metrics deep": Attack("text", M, at.text(DEEP), "report", ""),
    "metrics less deep": Attack("text", M, at.text("[" * 200 + "]" * 200), "report", ""),
    "metrics digits": Attack("text", M, at.text('{"a": ' + "9" * 5000 + "}"), "report", ""),
    "metrics too large": Attack("text", M, at.text('{"a": "' + "x" * 2**20 + '"}'), "report", ""),
    "metrics n": Attack("text", M, at.value("test|n", "many"), "evaluate", ""),
    "metrics infinite": Attack("text", M, at.value("test|acc", 10**400), "report", ""),
    "metrics kind": Attack("text", M, at.value("kind", "<script>"), "report", ""),
    "metrics matrix": Attack("text", M, at.value("test|confusion_matrix", [[1], [2]]), "report", ""),
    "metrics sum": Attack("text", M, at.value("test|n", 99), "report", ""),
    "metrics labels": Attack("masks", M, at.value("test|colours", [[300, 0, 0]] * 5), "report", ""),
    "status state": Attack("text", "status.json", at.value("state", {"a": 1}), "report", ""),
    "status in a resume": Attack("text", "status.json", at.text("finished"), "resume", ""),
    "plan rows": Attack("text", "plan.json", at.value("rows", {"a": 1}), "report", ""),
    "provenance seed": Attack("text", "provenance.json", at.value("seed", [1]), "compare", ""),
    "provenance in evaluate": Attack("text", "provenance.json", at.without("data|test"), "evaluate", ""),
    # tables
    "history text": Attack("text", H, at.line(1, "0,many"), "report", ""),
    "history header": Attack("text", H, at.line(0, "a,b"), "resume", ""),
    "history nul": Attack("text", H, at.raw(b"epoch\n\x00\n"), "report", ""),
    "predictions no parquet": Attack("text", P, at.text("PAR1 and more"), "report", ""),
    "predictions column": Attack("text", P, at.table(lambda t: t.drop(columns="label")), "report", ""),
    "predictions rows": Attack("text", P, at.table(lambda t: t.head(3)), "compare", ""),
    "predictions lists": Attack("text", P, at.table(lambda t: t.assign(label=[[1]] * len(t))), "report", ""),
    "predictions missing cell": Attack("text", P, at.table(lambda t: t.assign(label=[None] + ["a"] * (len(t) - 1))), "report", ""),
    "pictures of others": Attack("image", T, at.table(lambda t: t.assign(index=t["index"] + 10**6)), "report", ""),
    "pictures text": Attack("image", T, at.table(lambda t: t.assign(picture="<script>")), "report", ""),
    # sweeps
    "sweep cut": Attack("sweep", "sweep.json", at.cut, "resume", ""),
    "sweep words": Attack("sweep", "sweep.json", at.value("words", [1]), "resume", ""),
    "sweep deep": Attack("sweep", "sweep.json", at.text('{"words": ' + DEEP + "}"), "resume", ""),
    "sweep job metrics": Attack("sweep", "1/metrics.json", at.text("{"), "resume", ""),
    "sweep job plan": Attack("sweep", "0/plan.json", at.text("{}"), "resume", ""),
}  # fmt: skip


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Sound runs; nothing changes them."""
    return make_runs(tmp_path_factory.mktemp("sound"))


def run_command(attack: Attack, run: Path, sound: dict[str, Path], place: Path) -> Called:
    """Run a command on a run folder."""
    if attack.command == "resume" and attack.run == "sweep":
        return call("train", f"sweep.resume={run}", cwd=place)
    words = (*RUNS.get(attack.run, ()), *TRAIN, f"hydra.run.dir={run}", "ckpt_path=last")
    sample = place / "new.txt"
    sample.write_text("masks help\n")
    commands: dict[str, tuple[object, ...]] = {
        "evaluate": ("evaluate", run),
        "predict": ("predict", run, sample, "-o", place / "out.csv"),
        "report": ("report", run),
        "compare": ("report", sound["text"], run, "-o", place / "page.html"),
        "resume": ("train", *words, "trainer.max_epochs=2"),
    }
    return call(*commands[attack.command], cwd=place)  # type: ignore[arg-type]


def test_there_are_enough_attacks() -> None:
    assert len(ATTACKS) >= 60


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_on_a_run_folder_is_one_line(
    name: str, sound: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attack = ATTACKS[name]
    run = Path(shutil.copytree(sound[attack.run], tmp_path / "run"))
    page = (run / "report.html").read_bytes() if attack.run != "sweep" else b""
    file = run / attack.file
    attack.change(file)
    monkeypatch.setattr(run_folders.untrusted, "MAX_JSON", 2**20)
    if "bomb" in name:
        monkeypatch.setattr(run_folders.memory, "free_memory", lambda: 2**21)
    called = run_command(attack, run, sound, tmp_path)
    assert not called.crash
    assert called.code == 1
    assert called.error.replace(str(file), "{file}").replace(str(run), "{run}") == attack.line
    assert not Path("/tmp/thaw_was_attacked").exists()
    if attack.run != "sweep":
        assert (run / "report.html").read_bytes() == page  # the earlier page is not lost
