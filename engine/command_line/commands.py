"""The commands that start a job's processes, and those that resume a run or a sweep."""

from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf

from engine.command_line.flags import flags_of
from engine.command_line.hydra_settings import SWEEP_KEYS
from engine.command_line.quoting import quoted
from engine.command_line.shell import python_command, shell_command, typed_command
from engine.config.composing.composition import typed_overrides
from engine.config.redaction import hide

# Prefixes of overrides of Hydra that a resumed run does not repeat: its place, and what concerns a
# sweep as a whole.
_PLACE = ("hydra.mode=", "hydra.run.", *SWEEP_KEYS)
# The process that starts the others acts on these alone.
_PARENT_KEYS = (*_PLACE, "hydra.callbacks.", "hydra.output_subdir=")


def process_command(folder: Path, ckpt_path: str | None) -> list[str]:
    """Return the command of one process of the running job.

    It has the overrides that the user typed or the sweep chose, and the job's run folder.

    Args:
        folder: The run folder.
        ckpt_path: The checkpoint to start from.
    """
    hydra = HydraConfig.get()
    settings = [
        "hydra.mode=RUN",
        f"hydra.run.dir={quoted(folder)}",
        "hydra.output_subdir=null",
    ]
    if hydra.mode is RunMode.MULTIRUN:  # interpolations in the config may use these keys
        settings.append(f"hydra.sweep.dir={quoted(Path(hydra.sweep.dir).resolve())}")
        settings += [
            f"hydra.job.{key}={quoted(getattr(hydra.job, key))}"
            for key in ("num", "id")
            if not OmegaConf.is_missing(hydra.job, key)
        ]
    checkpoint = [] if ckpt_path is None else [f"ckpt_path={quoted(ckpt_path)}"]
    return [*python_command("train"), *_same_job(_PARENT_KEYS), *checkpoint, *settings]


def resume_run_command(folder: Path, secrets: set[str]) -> str:
    """Return the command for a shell that resumes the running job in its folder.

    Args:
        folder: The run folder.
        secrets: Texts that are hidden in the command.
    """
    place = [f"hydra.run.dir={quoted(folder)}", "ckpt_path=last"]
    # They are hidden before the shell's quotes are added, which change a secret with a quote.
    words = [hide(word, secrets) for word in (*_same_job(_PLACE), *place)]
    return shell_command(*typed_command("train"), *words)


def resume_sweep_command(folder: Path, flags: list[str]) -> str:
    """Return the command for a shell that resumes a sweep.

    Args:
        folder: The sweep's folder.
        flags: The flags that it was started with; see `flags_of`.
    """
    resume = f"sweep.resume={quoted(folder)}"
    return shell_command(*typed_command("train"), *flags, "-m", resume)


def _same_job(without: tuple[str, ...]) -> list[str]:
    """Return the flags and the overrides of the running job.

    Args:
        without: Prefixes of overrides of Hydra that are left out.
    """
    hydra: Any = HydraConfig.get()
    of_hydra: Any = OmegaConf.to_container(hydra.overrides.hydra, resolve=False)
    return [
        *flags_of(hydra),
        *(text for text in map(str, of_hydra) if not text.lstrip("+~").startswith(without)),
        *(text for text in typed_overrides() if not text.lstrip("+").startswith("ckpt_path=")),
    ]
