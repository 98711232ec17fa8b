"""Command line of `python -m keras_bert pretrain|finetune|predict|convert`.

It turns the arguments into settings. TensorFlow is imported only when a command runs.
"""

import argparse
import importlib.util
import os
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, Field, fields
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from engine.processes.outcome import report_failure
from keras_bert.errors import KerasBertError
from keras_bert.settings import (
    ConvertSettings,
    FinetuneSettings,
    PredictSettings,
    PretrainSettings,
    run_path,
)
from run_folders.errors import one_line

_REQUIRED_PACKAGES = ("tensorflow", "tensorboard", "sklearn")


def main(words: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        words: The arguments after `python -m keras_bert`; None for `sys.argv[1:]`.

    Returns:
        The exit code: 0 on success, 1 after an error, 130 or 143 after a signal.

    Raises:
        SystemExit: With code 2 if the arguments are invalid, with code 0 after `--help`.
    """
    parser = _parser()
    arguments = vars(parser.parse_args(words))
    work, settings_type = arguments.pop("work", None), arguments.pop("settings_type", None)
    with report_failure() as outcome:
        if work is None:
            _require_extra()
            parser.print_help()
        else:
            values = {
                key: tuple(value) if isinstance(value, list) else value
                for key, value in arguments.items()
            }
            settings = settings_type(**values)
            _require_extra()
            with _stderr_silenced():
                import tensorflow  # noqa: F401
            work(settings)
    return outcome.code


def _require_extra() -> None:
    missing = [name for name in _REQUIRED_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        msg = (
            f"keras_bert needs {', '.join(missing)}; install the extra `keras`: "
            "pip install -e '.[keras]'"
        )
        raise KerasBertError(msg)
    if os.environ["KERAS_BACKEND"] != "tensorflow":
        msg = (
            f"KERAS_BACKEND is {os.environ['KERAS_BACKEND']}: keras_bert runs on tensorflow only; "
            "unset KERAS_BACKEND"
        )
        raise KerasBertError(msg)


@contextmanager
def _stderr_silenced() -> Iterator[None]:
    """Discard stderr, because TensorFlow's libraries print notices before any setting works."""
    sys.stderr.flush()
    stderr = os.dup(2)
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(devnull)
        os.close(stderr)


def _timestamp() -> str:
    return datetime.now().astimezone().strftime("%Y-%m-%d_%H-%M-%S")


def _pretrain(settings: PretrainSettings) -> None:
    from keras_bert.training.pretraining import pretrain

    pretrain(settings, run_path(settings, "pretrain", _timestamp()))


def _finetune(settings: FinetuneSettings) -> None:
    from keras_bert.training.finetuning import finetune

    finetune(settings, run_path(settings, "finetune", _timestamp()))


def _predict(settings: PredictSettings) -> None:
    from keras_bert.prediction import predict, write_table

    target = Path(settings.out or "predictions.csv")
    table = predict(settings)
    write_table(table, target)
    print(f"{len(table)} predictions: {one_line(target)}")


def _convert(settings: ConvertSettings) -> None:
    from keras_bert.convert import to_hugging_face
    from keras_bert.data.tokenizing import load_tokenizer, save_for_hugging_face
    from keras_bert.loading import bert_of, find_source
    from keras_bert.network.tasks import PretrainingModel

    source, target = find_source(settings.run), Path(settings.out)
    tokenizer = load_tokenizer(source.folder, clean_links=False)
    to_hugging_face(
        source.model if isinstance(source.model, PretrainingModel) else bert_of(source.model),
        target,
    )
    save_for_hugging_face(tokenizer, target)
    print(f"weights and tokenizer in Hugging Face's layout: {one_line(target)}")


_COMMANDS: dict[str, tuple[Callable[[Any], None], type[Any], str]] = {
    "pretrain": (_pretrain, PretrainSettings, "pretrain a masked language model on texts"),
    "finetune": (_finetune, FinetuneSettings, "train a text classifier on top of a BERT"),
    "predict": (_predict, PredictSettings, "classify texts with the model of a finetune run"),
    "convert": (
        _convert,
        ConvertSettings,
        "write a BERT in the format of Hugging Face's from_pretrained",
    ),
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m keras_bert",
        description="BERT from scratch in Keras. Without data files, commands use sample texts.",
    )
    commands = parser.add_subparsers(metavar="COMMAND")
    for name, (work, settings_type, text) in _COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text.capitalize() + ".")
        command.set_defaults(work=work, settings_type=settings_type)
        hints = get_type_hints(settings_type)
        for option in fields(settings_type):
            _add(command, option, hints[option.name])
    return parser


def _add(command: argparse.ArgumentParser, option: Field[Any], hint: Any) -> None:  # noqa: ANN401
    """Add one option to the command line from one field of the settings."""
    keywords: dict[str, Any] = {"help": option.metadata["help"]}
    if option.metadata.get("positional"):
        command.add_argument(
            option.name,
            nargs="*" if get_origin(hint) is tuple else None,
            metavar=option.name.upper(),
            **keywords,
        )
        return
    flag = "--" + option.name.replace("_", "-")
    if hint is bool:
        command.add_argument(
            flag, action=argparse.BooleanOptionalAction, default=option.default, **keywords
        )
        return
    base_type = (
        next((part for part in get_args(hint) if part is not type(None)), hint)
        if get_origin(hint) in {Union, types.UnionType}
        else hint
    )
    if get_origin(hint) is Literal:
        keywords["choices"] = get_args(hint)
    elif get_origin(hint) is tuple:
        keywords |= {"nargs": "+", "metavar": "FILE"}
    else:
        text_metavar = "NAME" if option.name.endswith("column") else "PATH"
        metavar = {int: "N", float: "X"}.get(base_type, text_metavar)
        keywords |= {"type": base_type, "metavar": metavar}
    if option.metadata.get("required"):
        command.add_argument(flag, required=True, **keywords)
    else:
        has_default = option.default not in (None, (), MISSING)
        default_note = f" (default: {option.default})" if has_default else ""
        command.add_argument(
            flag,
            default=option.default,
            **{**keywords, "help": keywords["help"].replace("%", "%%") + default_note},
        )
