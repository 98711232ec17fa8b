"""The groups of configs, their options, and the help text. Standard library only."""

from engine.config.composing.paths import CONFIGS, own_config_folders

_HELP = """Thaw: fine-tune pretrained networks, and trust the result.

usage: {program} [GROUP=OPTION ...] [KEY=VALUE ...] [-m]

  {program}                                     the embedded sample: offline, under a minute
  {program} experiment=ctbert_bigru_finetune    a named experiment
  {program} experiment=... plan=true            print what would be trained, and stop
  {program} -m experiment=a,b seed=1,2,3        a sweep
  {program} experiment=... hydra.run.dir=RUN ckpt_path=last    resume an interrupted run

flags:
  --cfg job        print the composed config and stop (--resolve: with interpolations resolved)
  -m, --multirun   one job for each combination of comma-separated values;
                   sweep.resume=FOLDER resumes a sweep
  --hydra-help     Hydra's own flags

groups and their options:
{groups}
keys: every key of `--cfg job` can be set, for example trainer.max_epochs=3;
+KEY=VALUE adds a key that is not listed.
"""


def groups() -> dict[str, list[str]]:
    """Return group -> the names of its options, also those of own configs."""
    found: dict[str, set[str]] = {}
    for configs in (CONFIGS, *own_config_folders()):
        for file in configs.glob("*/*.yaml"):
            found.setdefault(file.parent.name, set()).add(file.stem)
    return {group: sorted(found[group]) for group in sorted(found)}


def help_text(program: str = "python train.py") -> str:
    """Return the text of `train.py --help`.

    Args:
        program: How the user calls the command.
    """
    lines = [
        f"  {group:<11}{', '.join(options)}\n"
        for group, options in groups().items()
        if group != "hydra"
    ]
    return _HELP.format(program=program, groups="".join(lines))
