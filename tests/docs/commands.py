"""Runs the shell commands of a page, at reduced size.

`train.py` trains for one epoch on small data. Networks of the hub are replaced by small random ones.
A sweep runs two jobs, a search one. If a command differs from one of the same page only in plain
values, such as numbers and names, its config is composed, completed with its data and validated, and
not run again. What needs a GPU, a cluster or an account is left out of a command, after the whole
config has been composed. Other programs are checked as far as their arguments can be read.
"""

import argparse
import importlib
import importlib.util
import io
import itertools
import logging
import re
import runpy
import shlex
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from tests.conftest import SAMPLE
from tests.docs.configs import check_configs, composed, kind_of_command, with_two_jobs
from tests.docs.workplace import Workplace
from tests.processes import ROOT, run
from tests.test_experiments import IMAGES, VIT

_ASSIGNMENT = re.compile(r"[A-Z][A-Z0-9_]*=.*")
_SHRUNK = (
    "trainer.accelerator=cpu",
    "trainer.limit_train_batches=2",
    "trainer.limit_val_batches=2",
    "trainer.limit_test_batches=2",
)
# Options that need a machine, a service or an account: composed, and then left out.
_OUTSIDE = re.compile(
    r"(trainer=(gpu|ddp|ddp_cpu|fsdp)$|trainer\.(devices|num_nodes|strategy|accelerator)="
    r"|hydra/launcher=|\+?hydra\.launcher\.|hydra\.sweeper\.(storage|study_name|n_jobs)="
    r"|\+?logger[.=])"
)
_LAUNCHERS = {"joblib", "submitit_slurm", "submitit_local", "ray", "basic"}
_SMALL_MASKS = {
    "segformer": "{model_type: segformer, depths: [1, 1, 1, 1], hidden_sizes: [8, 16, 24, 32],"
    " num_attention_heads: [1, 1, 2, 2], decoder_hidden_size: 16}",
    "beit": "{model_type: beit, hidden_size: 16, num_hidden_layers: 4, num_attention_heads: 2,"
    " intermediate_size: 32, image_size: 32, out_indices: [1, 2, 3, 4], auxiliary_channels: 8}",
}


def check_commands(text: str, workplace: Workplace) -> None:
    """Run or check all commands of a block."""
    text = text.replace("<the same overrides>", shlex.join(SAMPLE)).replace("\\\n", " ")
    for line in text.splitlines():
        for words in _commands(line):
            _check(words, workplace)


def _commands(line: str) -> Iterator[list[str]]:
    """Yield the words of each command of a line; `a && b`, `a | b` and `a > FILE` are understood."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;>")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in lexer:
        if word.strip("&|;>") == "":
            if words:
                yield words
            words = []
            if word == ">":
                next(lexer, None)
        else:
            words.append(word)
    if words:
        yield words


def _check(words: list[str], workplace: Workplace) -> None:
    env = {}
    while _ASSIGNMENT.fullmatch(words[0]):
        name, _, value = words.pop(0).partition("=")
        env[name] = value
        if not words:  # a line that only sets a variable
            return
    if "THAW_COMPONENTS" in env:
        package = env["THAW_COMPONENTS"]
        for path in env["PYTHONPATH"].split(":"):
            places = (workplace.folder / path.strip("/"), workplace.folder, ROOT / path)
            found = [place for place in places if (place / package / "__init__.py").is_file()]
            assert found, f"{package} is no package of the page"
            workplace.allow(found[0], package)
    program, *rest = words
    if program in ("python", "python3") and rest[0] == "-m":
        _check_module(rest[1], rest[2:], workplace)
    elif program in ("python", "python3"):
        _check_script(rest[0], rest[1:], workplace)
    elif program == "thaw":
        script = "train.py" if rest[0] == "train" else f"scripts/{rest[0].replace('-', '_')}.py"
        _check_script(script, rest[1:], workplace)
    elif program in _PROGRAMS:
        _PROGRAMS[program](rest, workplace)
    else:
        msg = f"no known way to check the program {program!r}"
        raise AssertionError(msg)


def _check_script(script: str, arguments: list[str], workplace: Workplace) -> None:
    if script == "train.py":
        _train(arguments, workplace)
        return
    if not (ROOT / script).is_file():
        _finish(workplace.folder / script, arguments, workplace)
        return
    more = ["--print"] if script == "scripts/wandb_dashboard.py" else []  # without an account
    _finish(ROOT / script, [*_prepared(arguments, workplace), *more], workplace)


def _train(arguments: list[str], workplace: Workplace) -> None:
    """Compose the config of a command, then train with it at reduced size."""
    sweep = "-m" in arguments or "--multirun" in arguments
    overrides = [
        _with_folders(word, workplace)
        for word in arguments
        if word not in ("...", "-m", "--multirun") and not word.endswith("=...")
    ]
    if any(word.startswith("-") for word in overrides):  # --help, --cfg job: nothing is trained
        _finish(ROOT / "train.py", arguments, workplace)
        return
    for word in overrides:
        if word.startswith("hydra/launcher="):
            assert word.partition("=")[2] in _LAUNCHERS, word
    kept = [word for word in overrides if not _OUTSIDE.match(word)]
    more = list(_adapted(overrides, kept, workplace, sweep=sweep))
    plan = kept != overrides or "plan=true" in kept
    if not workplace.paths and _was_run(kept, workplace, sweep=sweep, plan=plan):
        check_configs([*kept, *more], workplace, sweep=sweep)
        return
    if sweep and not _searches(kept) and not _resumes(kept):
        kept = list(with_two_jobs(kept))
    scheduled = [w for w in kept if re.match(r"\+?callbacks\.\w+\.schedule=", w)]
    epochs = max(map(int, re.findall(r"(\d+):", " ".join(scheduled))), default=0) + 1
    shrunk = [*_SHRUNK, f"trainer.max_epochs={epochs}"]
    if plan:  # the whole config was composed; the rest is validated, with its data
        shrunk.append("plan=true")
    command = [*(["-m"] if sweep else []), *kept, *more, *shrunk]
    _finish(ROOT / "train.py", command, workplace)


def _was_run(words: list[str], workplace: Workplace, *, sweep: bool, plan: bool) -> bool:
    """Whether a command of this page has run that differs only in plain values; remembers it."""
    if _searches(words) or _resumes(words):
        return False
    kind = kind_of_command([*(["-m"] if sweep else []), *words]) - {"plan=true"}
    if (kind, False) in workplace.run_kinds or (plan and (kind, True) in workplace.run_kinds):
        return True
    workplace.run_kinds.add((kind, plan))
    return False


def _searches(words: list[str]) -> bool:
    return any(word.startswith(("hydra/sweeper=optuna", "sweep=")) for word in words)


def _resumes(words: list[str]) -> bool:
    return "ckpt_path=last" in words or any(word.startswith("sweep.resume=") for word in words)


def _finish(program: Path, arguments: list[str], workplace: Workplace) -> None:
    """Run a program to its end, with the own packages of the page.

    A page without own packages needs no process of its own for a command of Thaw.
    """
    command = f"thaw.commands.{program.stem}"
    if not workplace.paths and importlib.util.find_spec(command) is not None:
        code, err = _called(importlib.import_module(command).main, arguments, workplace)
        assert code == 0, f"{program.name} {' '.join(arguments)}: {err[-800:]}"
        return
    paths = ":".join(map(str, workplace.paths))
    code, _, err = run(
        paths, program, *arguments, program=_call, cwd=workplace.folder, **workplace.environment
    )
    assert code == 0, f"{program.name} {' '.join(arguments)}: {err[-800:]}"


def _called(main: Callable[[], int], arguments: list[str], workplace: Workplace) -> tuple[int, str]:
    """Call a command in this process; returns its exit code and its stderr."""
    handlers = logging.getLogger().handlers.copy()
    with (
        workplace.entered(),
        pytest.MonkeyPatch.context() as patch,
        redirect_stderr(io.StringIO()) as err,
    ):
        patch.setattr(sys, "argv", ["thaw", *arguments])
        try:
            code = main()
        except SystemExit as end:  # of argparse
            code = int(end.code or 0)
    # Hydra's handlers write to this command's stderr.
    logging.getLogger().handlers[:] = handlers
    return code, err.getvalue()


def _call(paths: str, program: str, *arguments: str) -> None:
    """Run a program in the new process; it has read its PYTHONPATH already."""
    sys.path[:0] = [path for path in paths.split(":") if path]
    sys.argv = [program, *arguments]
    runpy.run_path(program, run_name="__main__")


def _adapted(
    overrides: list[str], kept: list[str], workplace: Workplace, *, sweep: bool
) -> Iterator[str]:
    """Yield the overrides that make a command run here: a small network, few trials."""
    if _searches(kept):
        yield "hydra.sweeper.n_trials=1"
    if any(word.startswith("sweep.resume=") for word in kept):
        return
    for cfg in composed(overrides, workplace, sweep=sweep):
        workplace.provide_data(cfg)
        if "ckpt_path=last" not in kept:
            small = _small_backbone(cfg, workplace)
        rows = "rows" in cfg.data and not any("rows=" in word for word in kept)
    if "ckpt_path=last" not in kept and small:
        yield f"model.backbone={small}"
    if "ckpt_path=last" not in kept and rows:  # embedded data
        yield "data.rows={train: 64, val: 32, test: 32}"


def _small_backbone(cfg: DictConfig, workplace: Workplace) -> str:
    """Return a small network in place of one of the hub; empty if the config names none."""
    backbone = OmegaConf.select(cfg, "model.backbone")
    if not isinstance(backbone, str) or (workplace.folder / backbone).exists():
        return ""
    target = cfg.model._target_.lower()
    if "segmenter" in target:
        return _SMALL_MASKS["segformer" if "mit-" in backbone else "beit"]
    if "text" in target:
        return str(workplace.backbone)
    architecture = backbone.partition(".")[0]
    if re.match(r"(deit|beit|vit)", architecture):
        return f"{{architecture: {architecture}, {VIT}}}"
    name = next((n for n in IMAGES if architecture in n), "sample_images")
    return IMAGES[name]


def _with_folders(word: str, workplace: Workplace) -> str:
    """Replace the names of runs, sweeps and folders that stand for the reader's own."""
    word = re.sub(r"runs/sweeps/[\w/-]+", lambda _: str(workplace.run("sweep")), word)
    word = re.sub(r"\b(OTHER_)?RUN\b", lambda _: str(workplace.run(_kind_of(word))), word)
    word = re.sub(r"(?<==)/(?!tmp)[\w/]+$", lambda m: str(workplace.folder / m[0][1:]), word)
    return re.sub(r"\b(FOLDER|DIR)\b", "data", word)


def _kind_of(text: str) -> str:
    if "maps" in text:
        return "masks"
    return "images" if "photos" in text else "texts"


def _prepared(arguments: list[str], workplace: Workplace) -> list[str]:
    """Replace placeholders of a script's arguments, and make the inputs that it reads."""
    kind = _kind_of(" ".join(arguments))
    prepared = []
    for option, word in itertools.pairwise(arguments):
        if option in ("-o", "--output", "--out"):  # another command of the page wrote it
            (workplace.folder / word).unlink(missing_ok=True)
    for previous, word in zip(["", *arguments], arguments, strict=False):
        if re.fullmatch(r"(OTHER_)?RUN|runs/(?!sweeps)[\w/-]+", word):
            prepared.append(str(workplace.run(kind)))
        elif previous == "--data-dir":
            prepared.append(str(workplace.folder))
        elif not word.startswith("-") and previous not in ("-o", "--out", "--dir", "--column"):
            is_input = ("/" in word or "." in word) and "=" not in word and word != "ENTITY/PROJECT"
            labelled = previous == "--data"
            prepared.append(
                str(workplace.provide_input(word, labelled=labelled)) if is_input else word
            )
        else:
            prepared.append(word)
    return prepared


def _check_module(name: str, arguments: list[str], workplace: Workplace) -> None:
    if name == "pip":
        _check_pip(arguments, workplace)
    elif name == "keras_bert":
        parser: argparse.ArgumentParser = importlib.import_module(
            "keras_bert.command_line"
        )._parser()
        parser.parse_args([word for word in arguments if word != "..."])
    else:
        assert importlib.util.find_spec(name), f"no module {name}"


def _check_pip(arguments: list[str], workplace: Workplace) -> None:
    """Check that the extras and folders of `pip install` exist."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    assert arguments[0] == "install", arguments
    for word in arguments[1:]:
        name, _, listed = word.partition("[")
        for extra in filter(None, listed.rstrip("]").split(",")):
            assert extra in extras, f"no extra {extra}"
        if name.startswith("."):
            assert (ROOT / name).is_dir(), f"no folder {name}"
            if name != ".":
                workplace.allow(ROOT / name, Path(name).name)
        else:
            assert name in ("-e", "thaw", "-U") or name.startswith("-"), f"what is {name}?"


def _check_launcher(arguments: list[str], workplace: Workplace) -> None:
    """Check a command of torchrun: its own options, and the overrides of train.py."""
    from torch.distributed.run import get_args_parser

    parsed = get_args_parser().parse_args(arguments)
    assert parsed.training_script == "train.py", arguments
    _train(parsed.training_script_args, workplace)


def _check_sbatch(arguments: list[str], workplace: Workplace) -> None:
    script, *overrides = [word for word in arguments if not word.startswith("--")]
    assert (ROOT / script).is_file(), f"no file {script}"
    _train(overrides, workplace)


def _check_wandb(arguments: list[str], workplace: Workplace) -> None:
    from wandb.cli.cli import cli

    assert arguments[0] in cli.commands, f"wandb has no command {arguments[0]}"
    if arguments[0] == "sweep":
        assert (ROOT / arguments[1]).is_file(), f"no file {arguments[1]}"


def _check_nothing(arguments: list[str], workplace: Workplace) -> None:
    """A program that Thaw does not define."""


_PROGRAMS: dict[str, Callable[[list[str], Workplace], None]] = {
    "pip": _check_pip,
    "torchrun": _check_launcher,
    "sbatch": _check_sbatch,
    "wandb": _check_wandb,
    "tensorboard": _check_nothing,
    "mlflow": _check_nothing,
    "pytest": _check_nothing,
    "cd": _check_nothing,
    "git": _check_nothing,
    "mkdir": _check_nothing,
    "export": _check_nothing,
}
