"""Each hostile or damaged input gives the one line that is stated here, and runs no code."""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import run_folders.memory
import run_folders.untrusted
from tests.attacks import inputs as at
from tests.attacks.sound import RUNS, TRAIN, Called, call, make_runs

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
        line: The error message. `{file}` is the path of the file, `{run}` that of the folder, and
            `*` the text of another library.
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
    "config no yaml": Attack("text", C, at.text("a: [1\nb: 2"), "predict",
        "{file} is damaged: while parsing*" + CONFIG),
    "config list": Attack("text", C, at.text("- 1\n"), "predict",
        "{file} has no keys" + CONFIG),
    "config scalar": Attack("text", C, at.text("hello"), "predict",
        "{file}: model: has no _target_" + CONFIG),
    "config empty": Attack("text", C, at.text(""), "evaluate",
        "{file} has no keys" + CONFIG),
    "config latin-1": Attack("text", C, at.raw(b"name: \xe9\xff\n"), "predict",
        "{file} is damaged: byte 6 is 0xe9, which is not UTF-8" + CONFIG),
    "config folder": Attack("text", C, at.folder, "predict",
        "{file} is a folder, a pipe or a device, where a file is needed" + CONFIG),
    "config pipe": Attack("text", C, at.pipe, "predict",
        "{file} is a folder, a pipe or a device, where a file is needed" + CONFIG),
    "config billion laughs": Attack("text", C, at.text(at.BOMB), "predict",
        "{file} is damaged: it has more than 1,000,000 values, counting the expansion of its aliases" + CONFIG),
    "config bomb in report": Attack("text", C, at.text(at.BOMB), "compare",
        "{file} is damaged: it has more than 1,000,000 values, counting the expansion of its aliases" + RESTORE),
    "config alias of itself": Attack("text", C, at.text("a: &a [*a]\n"), "predict",
        "{file} is damaged: the alias *a stands before or inside of its anchor" + CONFIG),
    "config deep": Attack("text", C, at.text(f"a: {DEEP}"), "predict",
        "{file} is damaged: *" + CONFIG),
    "config python tag": Attack("text", C, at.text("a: !!python/object/apply:os.system ['id']\n"), "predict",
        "{file} is damaged: could not determine a constructor for the tag *" + CONFIG),
    "config too large": Attack("text", C, at.text("a: 1\n" + "#" * 2**22), "predict",
        "{file} is damaged: it has more than 4,194,304 bytes, the largest size that is read" + CONFIG),
    "config month 13": Attack("text", C, at.text("a: 2026-13-01\n"), "compare",
        "{file} is damaged: month must be in 1..12" + RESTORE),
    "config digits": Attack("text", C, at.text(f"a: {'9' * 5000}\n"), "predict",
        "{file} is damaged: Exceeds the limit*" + CONFIG),
    "config format": Attack("text", C, at.value("format", 99), "predict",
        "{file} has the format 99; this version of Thaw reads 1 to 2"),
    "config without data": Attack("text", C, at.without("data"), "predict",
        "{file}: data: has no _target_" + CONFIG),
    "config data list": Attack("text", C, at.value("data", [1]), "predict",
        "{file} is damaged: data is a list, where a mapping is needed" + CONFIG),
    "config without target": Attack("text", C, at.without("model|_target_"), "predict",
        "{file}: model: has no _target_" + CONFIG),
    "config os.system": Attack("text", C, at.value("model|_target_", "os.system"), "predict",
        "{file}: model._target_: received 'os.system'; only names of lightning_modules are allowed here" + CONFIG),
    "config lr text": Attack("text", C, at.value("model|lr", "<script>"), "predict",
        "{file}: model.lr: received '<script>'; float is needed" + CONFIG),
    "config unknown key": Attack("text", C, at.value("data|shell", "rm"), "evaluate",
        "{file}: data.shell: unknown key of SampleTextDataModule; known: *" + CONFIG),
    "config classes": Attack("text", C, at.value("data|classes", ["a"]), "predict",
        "{file}: data.num_classes: received 2; data.classes names 1: a" + CONFIG),
    # best.ckpt
    "checkpoint empty": Attack("text", K, at.raw(b""), "predict",
        "{file} is damaged or not a checkpoint of Thaw (File is not a zip file)" + AGAIN),
    "checkpoint text": Attack("text", K, at.text("hello"), "predict",
        "{file} is damaged or not a checkpoint of Thaw (File is not a zip file)" + AGAIN),
    "checkpoint cut": Attack("text", K, at.cut, "predict",
        "{file} is damaged or not a checkpoint of Thaw (File is not a zip file)" + AGAIN),
    "checkpoint list": Attack("text", K, at.saved([1]), "evaluate",
        "{file} is not a checkpoint of Thaw; ckpt_path takes the path of a run's best.ckpt or last.ckpt, or last (with hydra.run.dir=RUN)"),
    "checkpoint of others": Attack("text", K, at.saved({"state_dict": {}}), "predict",
        "{file} is not a checkpoint of Thaw; ckpt_path takes the path of a run's best.ckpt or last.ckpt, or last (with hydra.run.dir=RUN)"),
    "checkpoint own part a list": Attack("text", K, at.value("thaw", [1]), "predict",
        "{file} is not a checkpoint of Thaw; ckpt_path takes the path of a run's best.ckpt or last.ckpt, or last (with hydra.run.dir=RUN)"),
    "checkpoint format": Attack("text", K, at.value("thaw|format", 99), "predict",
        "{file} is not a checkpoint of Thaw; ckpt_path takes the path of a run's best.ckpt or last.ckpt, or last (with hydra.run.dir=RUN)"),
    "checkpoint without backbone": Attack("text", K, at.without("thaw|backbone"), "predict",
        "{file} is damaged: its backbone is unreadable ('backbone')" + AGAIN),
    "checkpoint backbone deep": Attack("text", K, at.value("thaw|backbone", DEEP), "predict",
        "{file} is damaged: its backbone is unreadable (maximum recursion*)" + AGAIN),
    "checkpoint backbone list": Attack("text", K, at.value("thaw|backbone", "[1]"), "predict",
        "{file} is damaged: its backbone is no mapping" + AGAIN),
    "checkpoint backbone huge": Attack("text", K, at.value("thaw|backbone", '{"model_type": "bert", "hidden_size": 9, "num_attention_heads": 2}'), "predict",
        "{file} is damaged: it does not fit the model in config.yaml (*)" + AGAIN),
    "checkpoint weights text": Attack("text", K, at.value("state_dict", {"a": "b"}), "predict",
        "{file} is damaged: state_dict is no mapping of names to tensors" + AGAIN),
    "checkpoint other shapes": Attack("text", K, at.value("state_dict", {"network.x": torch.zeros(3)}), "predict",
        "{file} is damaged: it does not fit the model in config.yaml (Error(s) in loading state_dict for TextClassifier*)" + AGAIN),
    "checkpoint code": Attack("text", K, at.pickled, "predict",
        "{file} is damaged or not a checkpoint of Thaw (it has other content than tensors and plain values, which could run code)" + AGAIN),
    "checkpoint lying directory": Attack("text", K, at.lying, "predict",
        "{file} is damaged or not a checkpoint of Thaw (*data.pkl does not match its checksum)" + AGAIN),
    "checkpoint bomb": Attack("text", K, at.zipped({"a": bytes(2**22)}), "predict",
        "{file} is * bytes, but unpacks to 4,194,304 bytes, more than the 2,097,152 bytes of free memory; take another checkpoint, or train again"),
    "checkpoint folder": Attack("text", K, at.folder, "predict",
        "{file}: no such checkpoint; ckpt_path takes the path of a run's best.ckpt or last.ckpt, or last (with hydra.run.dir=RUN)"),
    "checkpoint tokenizer": Attack("text", K, at.value("SampleTextDataModule|tokenizer", "{}"), "predict",
        "{file} is damaged: its tokenizer cannot be read (*)" + AGAIN),
    "checkpoint tokenizer list": Attack("text", K, at.value("SampleTextDataModule", [1]), "predict",
        "{file} is damaged: SampleTextDataModule is a list, where a mapping is needed" + AGAIN),
    "checkpoint size": Attack("image", K, at.value("SampleImagesDataModule|size", [2**20, 2**20]), "predict",
        "{file} is damaged: SampleImagesDataModule.size is [1048576, 1048576], which are 0 pixels or more than data.max_pixels" + AGAIN),
    "checkpoint size text": Attack("image", K, at.value("SampleImagesDataModule|size", "32"), "evaluate",
        "{file} is damaged: SampleImagesDataModule.size is '32', where a list is needed" + AGAIN),
    "checkpoint without optimizer": Attack("text", "checkpoints/last.ckpt", at.without("optimizer_states"), "resume",
        "{file} is damaged: it lacks optimizer_states; take the run's last.ckpt, or start a new run"),
    "checkpoint loops": Attack("text", "checkpoints/last.ckpt", at.value("loops", {"fit_loop": {}}), "resume",
        "{file} is damaged: it lacks loops.fit_loop.epoch_progress; take the run's last.ckpt, or start a new run"),
    # JSON
    "metrics no json": Attack("text", M, at.text('{"val": '), "report",
        "{file} is damaged: Expecting value: line 1 column 9 (char 8)" + RESTORE),
    "metrics list": Attack("text", M, at.text("[]"), "report",
        "{file} is damaged: its content is a list, where a mapping is needed" + RESTORE),
    "metrics nan": Attack("text", M, at.text('{"a": NaN}'), "report",
        "{file} is damaged: NaN is not JSON" + RESTORE),
    "metrics deep": Attack("text", M, at.text(DEEP), "report",
        "{file} is damaged: its values are nested more than 100 levels deep" + RESTORE),
    "metrics less deep": Attack("text", M, at.text("[" * 200 + "]" * 200), "report",
        "{file} is damaged: its values are nested more than 100 levels deep" + RESTORE),
    "metrics digits": Attack("text", M, at.text('{"a": ' + "9" * 5000 + "}"), "report",
        "{file} is damaged: Exceeds the limit*" + RESTORE),
    "metrics too large": Attack("text", M, at.text('{"a": "' + "x" * 2**20 + '"}'), "report",
        "{file} is damaged: it has more than 1,048,576 bytes, the largest size that is read" + RESTORE),
    "metrics n": Attack("text", M, at.value("test|n", "many"), "evaluate",
        "{file} is damaged: test.n is 'many', where a whole number of 0 or more is needed" + RESTORE),
    "metrics infinite": Attack("text", M, at.value("test|acc", 10**400), "report",
        "{file} is damaged: test.acc is a huge number, where a number of at most 1e+100 is needed" + RESTORE),
    "metrics kind": Attack("text", M, at.value("kind", "<script>"), "report",
        "{run}: kind of task '<script>' is none of classification, multilabel, segmentation; a kind of an own package needs that package: install it with an entry point of thaw.components, or set THAW_COMPONENTS=PACKAGE"),
    "metrics matrix": Attack("text", M, at.value("test|confusion_matrix", [[1], [2]]), "report",
        "{file} is damaged: test.confusion_matrix is not 2 x 2" + RESTORE),
    "metrics sum": Attack("text", M, at.value("test|n", 99), "report",
        "{file} is damaged: the sum of test.confusion_matrix is not test.n" + RESTORE),
    "metrics labels": Attack("masks", M, at.value("test|colours", [[300, 0, 0]] * 5), "report",
        "{file} is damaged: test.colours has values above 255" + RESTORE),
    "status state": Attack("text", "status.json", at.value("state", {"a": 1}), "report",
        "{file} is damaged: state is a mapping, where a text is needed" + RESTORE),
    "status in a resume": Attack("text", "status.json", at.text("finished"), "resume",
        "{file} is damaged: Expecting value: line 1 column 1 (char 0)" + RESTORE),
    "plan rows": Attack("text", "plan.json", at.value("rows", {"a": 1}), "report",
        "{file} is damaged: rows is a mapping, where a list is needed" + RESTORE),
    "provenance seed": Attack("text", "provenance.json", at.value("seed", [1]), "compare",
        "{file} is damaged: seed is a list, where a whole number of 0 or more is needed" + RESTORE),
    "provenance in evaluate": Attack("text", "provenance.json", at.without("data|test"), "evaluate",
        "{file} is missing, or has no test data; restore it"),
    # tables
    "history text": Attack("text", H, at.line(1, "0,many"), "report",
        "{file} is damaged: line 2 has 2 cells, and the header *" + RESTORE),
    "history header": Attack("text", H, at.line(0, "a,b"), "resume",
        "{file} is damaged: its header has no column epoch, or a column twice" + RESTORE),
    "history nul": Attack("text", H, at.raw(b"epoch\n\x00\n"), "report",
        "{file} is damaged: line 2: epoch is '\\x00', where a whole number is needed" + RESTORE),
    "predictions no parquet": Attack("text", P, at.text("PAR1 and more"), "report",
        "{file} is damaged: Parquet magic bytes*" + RESTORE),
    "predictions column": Attack("text", P, at.table(lambda t: t.drop(columns="label")), "report",
        "{file} is damaged: it lacks the column 'label'" + RESTORE),
    "predictions rows": Attack("text", P, at.table(lambda t: t.head(3)), "compare",
        "{file} is damaged: it has 3 rows, and metrics.json counts 12 samples" + RESTORE),
    "predictions lists": Attack("text", P, at.table(lambda t: t.assign(label=[[1]] * len(t))), "report",
        "{file} is damaged: the column 'label' has the type list<element: int64>" + RESTORE),
    "predictions missing cell": Attack("text", P, at.table(lambda t: t.assign(label=[None] + ["a"] * (len(t) - 1))), "report",
        "{file} is damaged: the column 'label' has other values than texts" + RESTORE),
    "pictures of others": Attack("image", T, at.table(lambda t: t.assign(index=t["index"] + 10**6)), "report",
        "{file} is damaged: it has pictures of other samples" + RESTORE),
    "pictures text": Attack("image", T, at.table(lambda t: t.assign(picture="<script>")), "report",
        "{file} is damaged: the column 'picture' has other values than files" + RESTORE),
    # sweeps
    "sweep cut": Attack("sweep", "sweep.json", at.cut, "resume",
        "{file} is damaged: *" + RESTORE),
    "sweep words": Attack("sweep", "sweep.json", at.value("words", [1]), "resume",
        "{file} is damaged: words.0 is 1, where a text is needed" + RESTORE),
    "sweep deep": Attack("sweep", "sweep.json", at.text('{"words": ' + DEEP + "}"), "resume",
        "{file} is damaged: its values are nested more than 100 levels deep" + RESTORE),
    "sweep search": Attack("sweep", "search.json", at.text('{"sampler": "tpe", "pruner": "none", "n_trials": 1, "objectives": {}, "log": [], "best": [], "importance": {}, "trials": []}'), "resume",
        "sweep.html was not written: {file} is damaged: it has no objectives" + RESTORE),
    "sweep job metrics": Attack("sweep", "1/metrics.json", at.text("{"), "resume",
        "1 of 2 jobs failed\n  job 1 (as configured): {file} is damaged: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)" + RESTORE),
    "sweep job plan": Attack("sweep", "0/plan.json", at.text("{}"), "resume",
        "sweep.html was not written: {file} is damaged: it lacks rows" + RESTORE),
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
    line = attack.line.replace("{file}", str(file)).replace("{run}", str(run))
    assert re.fullmatch(re.escape(line).replace(r"\*", ".*"), called.error), called.error
    assert not Path("/tmp/thaw_was_attacked").exists()
    if attack.run != "sweep":
        assert (run / "report.html").read_bytes() == page  # the earlier page is not lost
