"""Values that users type and commands that Thaw prints, for folders with any characters."""

import json
import random
import shlex
import signal
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import OverrideParseException
from omegaconf import OmegaConf
from torch.distributed import HashStore

from engine.command_line.commands import resume_sweep_command
from engine.command_line.explaining import OverrideError, explaining_errors
from engine.command_line.flags import split_flags
from engine.command_line.published_optuna import replacement
from engine.command_line.quoting import quoted, settled, unquoted
from engine.config.composing.composition import compose_config
from engine.config.composing.paths import CONFIGS
from engine.config.errors import ConfigError
from engine.processes import ranks
from engine.sweeps.folders import choose_folder
from engine.sweeps.names import register_resolvers
from engine.sweeps.recorded_overrides import is_trusted
from run_folders.run_folder import RunFolder
from tests.conftest import SAMPLE
from tests.pausing import pausing
from tests.processes import ended, environment, start, wait_for

CHARACTERS = " äß漢=(&#'!;[{,$`\"\\)]}~%*?|<>:@"
ODD = "ä漢 =(&#'!;[{,$b`\"\\~[red]"


def read(override: str) -> str:
    """The value that a config has after an override."""
    cfg = OmegaConf.create({"key": None})
    OmegaConf.update(cfg, "key", OverridesParser.create().parse_override(override).value())
    return str(cfg.key)


def test_hydra_reads_a_quoted_value_unchanged() -> None:
    rng = random.Random(0)
    parts = [*CHARACTERS, "${", "a", "\\\\", "/"]
    values = ["/" + "".join(rng.choices(parts, k=rng.randint(0, 8))) for _ in range(500)]
    for value in [*values, "7", "null", "true", "", "/plain/path-1.0"]:
        assert read(f"key={quoted(value)}") == value
    assert quoted("/plain/path-1.0") == "/plain/path-1.0"
    for value in values:
        if "${" not in value:
            assert unquoted(quoted(value)) == value


@pytest.mark.parametrize("character", CHARACTERS)
def test_bash_and_hydra_read_the_printed_folder(
    character: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / f"a{character}b" / f"c{character}"
    folder.mkdir(parents=True)
    show = "import json, os, sys; print(json.dumps([os.getcwd(), *sys.argv[1:]]))"
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{show}' \"$@\"\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.chdir(folder)
    command = resume_sweep_command(folder, [f"--config-dir={folder}"])
    done = subprocess.run(["bash", "-c", command], cwd="/", capture_output=True, check=True)
    cwd, _, flag, *typed = json.loads(done.stdout)
    assert (cwd, flag) == (str(folder), f"--config-dir={folder}")
    assert typed[0] == "-m"
    assert read(typed[1]) == str(folder)


def pasted(command: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a user who pastes it into a terminal, in another folder."""
    return subprocess.run(
        ["bash", "-c", command], cwd="/", env=environment(), capture_output=True, text=True
    )


def test_the_printed_commands_resume_a_run_and_a_sweep(tmp_path: Path) -> None:
    """The configs are in the working directory and in a folder of --config-dir."""
    cwd = tmp_path / ODD
    for place, name in ((cwd / "configs", "here"), (cwd / "more é", "there")):
        (place / "experiment").mkdir(parents=True)
        file = place / "experiment" / f"{name}.yaml"
        file.write_text("# @package _global_\nmodel:\n  lr: 0.002\n")
    flag, small = "--config-dir=more é", [*SAMPLE, "trainer.accelerator=cpu"]
    process = start(
        2, 1, "experiment=there", *small, "trainer.max_epochs=3", flag, program=pausing, cwd=cwd
    )
    runs = cwd / "runs" / "there"
    wait_for(lambda: len(list(runs.glob("*/checkpoints/last.ckpt"))) == 1, process)
    (folder,) = (RunFolder(path) for path in runs.iterdir())
    wait_for(lambda: len(folder.read_history()) == 2, process)
    process.send_signal(signal.SIGTERM)
    code, _, err = ended(process)
    assert code == 143
    command = err.partition("to resume: ")[2].splitlines()[0]
    done = pasted(command)
    assert done.returncode == 0, done.stderr
    assert folder.read_json("status.json")["state"] == "finished"
    assert len(folder.read_history()) == 3

    process = start("-m", "experiment=here,there", *small, "model.lr=1e38", flag, cwd=cwd)
    code, out, err = ended(process)
    assert (code, "2 of 2 jobs failed" in err) == (1, True)
    command = out.partition("to resume: ")[2].splitlines()[0]
    done = pasted(f"{command} model.lr=0.001")
    assert done.returncode == 0, done.stderr
    (sweep,) = (cwd / "runs" / "sweeps" / "here+there").iterdir()
    forgotten = start(f"sweep.resume={sweep}", cwd=cwd)
    assert (
        f"the sweep began with --config-dir={cwd / 'more é'}; set it again" in ended(forgotten)[2]
    )


def test_a_config_dir_reaches_all_processes_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "more é" / "experiment").mkdir(parents=True)
    (tmp_path / "more é" / "experiment" / "there.yaml").write_text("# @package _global_\nseed: 7\n")
    process = start(
        "experiment=there", *SAMPLE, "trainer=ddp_cpu", "--config-dir", "more é",
        "trainer.max_epochs=1", "hydra.run.dir='ü b'", cwd=tmp_path,
    )  # fmt: skip
    code, _, err = ended(process)
    assert code == 0, err
    assert RunFolder(tmp_path / "ü b").read_json("provenance.json")["seed"] == 7


def test_flags_may_stand_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a b").mkdir()
    arguments = ["-m", "seed=1", "-cd", "a b", "model.lr=1", "--config-name=other"]
    expected = [f"--config-dir={tmp_path / 'a b'}", "--config-name=other"]
    assert split_flags(arguments) == (expected, ["-m", "seed=1", "model.lr=1"])
    for refused in (["--config-path", "x"], ["-cp=x"], ["--experimental-rerun", "x.pickle"]):
        with pytest.raises(ConfigError, match="Thaw does not support this flag"):
            split_flags(refused)
    with pytest.raises(ConfigError, match="--config-dir=none: no such folder"):
        split_flags(["--config-dir", "none"])
    for arguments in (["seed=1", "--config-dir"], ["-cn"], ["--config-name="]):
        with pytest.raises(ConfigError, match=r"no value follows; write --config-\w+=VALUE"):
            split_flags(arguments)


@pytest.mark.parametrize(
    ("override", "suggestion"),
    [
        ("data.folder=Vögel", 'data.folder="Vögel"'),
        ("data.classes=[Fink,Grünspecht]", 'data.classes=[Fink,"Grünspecht"]'),
        ("data.files={train: ü.csv, val: null}", 'data.files={train: "ü.csv", val: null}'),
        *((f"data.folder=a{c}b", f"data.folder={quoted(f'a{c}b')}") for c in "#&!;=<>^~'\"("),
    ],
)
def test_a_value_that_needs_quotes_is_shown_in_quotes(override: str, suggestion: str) -> None:
    with pytest.raises(OverrideError) as raised, explaining_errors([override]):
        OverridesParser.create().parse_overrides([override])
    message = str(raised.value)
    assert message.startswith(f"{override}: Hydra reads this value only in quotes; type ")
    (typed,) = shlex.split(message.partition("; type ")[2])
    assert typed == suggestion
    OverridesParser.create().parse_overrides([typed])


@pytest.mark.parametrize(
    ("typed", "advice"),
    [
        (["data.tokenizer={vocab_size:", "2000}"], "data.tokenizer={vocab_size: 2000}"),
        (["data.classes=[a,", "b]", "seed=1"], "data.classes=[a, b]"),
        (["data.files={a:", "ü.csv}"], 'data.files={a: "ü.csv"}'),
        (["data.tokenizer={vocab_size:", "2000"], ""),
    ],
)
def test_an_argument_that_the_shell_split_is_joined(typed: list[str], advice: str) -> None:
    with pytest.raises(OverrideError) as raised, explaining_errors(typed):
        OverridesParser.create().parse_overrides(typed)
    expected = (
        f"{typed[0]} ... : the shell split this argument at a blank; "
        f"put it in quotes: {shlex.quote(advice)}"
        if advice
        else f"{typed[0]}: a bracket is not closed; close it, and put the argument in quotes"
    )
    assert str(raised.value) == expected


def test_a_mapping_that_hydra_merges_can_be_replaced() -> None:
    typed = "model.backbone={model_type: gpt2, n_embd: 8}"
    with pytest.raises(OverrideError) as raised, explaining_errors(["seed=1", typed]):
        compose_config(["seed=1", typed])
    message = str(raised.value)
    assert message.startswith("model.backbone: the config has a mapping there, which has no 'n_em")
    cfg = compose_config(shlex.split(message.partition("type ")[2]))
    assert cfg.model.backbone == {"model_type": "gpt2", "n_embd": 8}


def test_values_of_a_sweep_are_quoted_one_by_one() -> None:
    with (
        pytest.raises(OverrideError, match=r"'data.folder=\"Vögel\",b'"),
        explaining_errors(["-m"]),
    ):
        OverridesParser.create().parse_overrides(["data.folder=Vögel,b"])


def test_a_key_that_cannot_be_parsed_is_named() -> None:
    with pytest.raises(OverrideError, match="'dätä' is no key"), explaining_errors([]):
        OverridesParser.create().parse_overrides(["dätä=1"])
    with pytest.raises(OverrideError, match="put each text in it in quotes"), explaining_errors([]):
        OverridesParser.create().parse_overrides(["data.files={a: b=c, d: [e,f]}"])
    with pytest.raises(OverrideParseException):
        OverridesParser.create().parse_overrides(["dätä=1"])


def test_a_folder_that_cannot_be_created_is_one_line() -> None:
    with (
        pytest.raises(OverrideError, match=r"^/proc/none cannot be written: No such file"),
        explaining_errors([]),
    ):
        Path("/proc/none").mkdir()


@pytest.mark.parametrize("key", ["params", "direction", "sampler", "search_space.x"])
def test_keys_of_the_published_plugin_name_ours(key: str) -> None:
    message = replacement(f"hydra.sweeper.{key}")
    assert message is not None
    assert "Thaw's hydra/sweeper=optuna has hydra.sweeper." in message
    assert replacement("hydra.sweeper.n_trials") is None
    assert replacement("hydra.sweeper") is None


def test_replaced_overrides_are_left_out() -> None:
    overrides = ["seed=1,2", "+a={b: 1}", "seed=3", "+a={c: 1}", "model.lr=1"]
    assert settled(overrides) == ["seed=3", "+a={b: 1}", "+a={c: 1}", "model.lr=1"]


def test_folder_names_of_a_sweep_are_taken_from_its_record() -> None:
    for name in ("a b/${hydra.job.override_dirname}", "${hydra:job.num}", "ü"):
        assert is_trusted(f'hydra.sweep.subdir="{name}"')
    assert is_trusted("hydra.job.config.override_dirname.exclude_keys=[seed]")
    assert is_trusted("hydra.job.config.override_dirname.item_sep=/")
    assert not is_trusted("hydra.sweep.subdir=../x")
    assert not is_trusted("hydra.sweep.subdir='a/../../x'")
    assert not is_trusted('hydra.sweep.subdir="/tmp/x"')
    assert not is_trusted("hydra.sweep.subdir=${oc.env:HOME}")
    assert not is_trusted("hydra.sweep.subdir=${hydra:${oc.env:HOME}}")


@pytest.mark.parametrize("key", ["hydra.run.dir", "hydra.sweep.dir"])
def test_runs_and_sweeps_begun_at_once_have_their_own_folders(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register_resolvers()
    monkeypatch.setattr(ranks.time, "strftime", lambda _: "now")
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        overrides = [f"paths.runs_dir={tmp_path}"]
        composed = compose("train", overrides, return_hydra_config=True)
    chosen = []
    for _ in range(10):
        config = deepcopy(composed)
        choose_folder(config, key)
        folder = str(OmegaConf.select(config, key))
        assert config.hydra.overrides.hydra[-1] == f"{key}={folder}"
        assert Path(folder).is_dir()
        chosen.append(folder)
    assert [Path(folder).name for folder in chosen] == ["now", *(f"now_{n}" for n in range(2, 11))]


@pytest.mark.parametrize("key", ["hydra.run.dir", "hydra.sweep.dir"])
def test_a_folder_that_the_user_names_is_not_renamed(key: str, tmp_path: Path) -> None:
    register_resolvers()
    (tmp_path / "mine").mkdir()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        overrides = [f"{key}={tmp_path / 'mine'}"]
        config = compose("train", overrides, return_hydra_config=True)
    choose_folder(config, key)
    assert OmegaConf.select(config, key) == str(tmp_path / "mine")


def test_processes_of_torchrun_agree_on_the_choice_of_rank_zero(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = HashStore()
    monkeypatch.setattr(ranks, "_agents_store", lambda: store)
    variables = {"WORLD_SIZE": "2", "LOCAL_RANK": "0", "TORCHELASTIC_USE_AGENT_STORE": "True"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    for rank in ("0", "1", "0"):  # rank 0 is restarted
        monkeypatch.setenv("RANK", rank)
        assert ranks.agreed("folder", iter(["first", "second"]).__next__) == "first"
