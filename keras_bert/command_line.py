"""`python -m keras_bert pretrain|finetune|predict|convert`: words into settings. TensorFlow is imported when there is work."""

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

_NEEDED = ("tensorflow", "tensorboard", "sklearn")


def main(words: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        words: The command line behind `python -m keras_bert`; None for the process's own.

    Returns:
        The exit code: 0, 1 after an error, 2 for a command line that is none, 130 or 143 after a
            signal.
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
            with _without_notices():
                import tensorflow  # noqa: F401
            work(settings)
    return outcome.code


def _require_extra() -> None:
    lacking = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if lacking:
        msg = f"keras_bert needs {', '.join(lacking)}; the extra `keras` brings what it needs: pip install -e '.[keras]'"
        raise KerasBertError(msg)
    if os.environ["KERAS_BACKEND"] != "tensorflow":
        msg = f"KERAS_BACKEND is {os.environ['KERAS_BACKEND']}: keras_bert runs on tensorflow; unset it"
        raise KerasBertError(msg)


@contextmanager
def _without_notices() -> Iterator[None]:
    """TensorFlow's libraries write to stderr what they were built with, before any setting can stop them."""
    sys.stderr.flush()
    stderr = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(nowhere)
        os.close(stderr)


def _stamp() -> str:
    return datetime.now().astimezone().strftime("%Y-%m-%d_%H-%M-%S")


def _pretrain(settings: PretrainSettings) -> None:
    from keras_bert.pretraining import pretrain

    pretrain(settings, run_path(settings, "pretrain", _stamp()))


def _finetune(settings: FinetuneSettings) -> None:
    from keras_bert.finetuning import finetune

    finetune(settings, run_path(settings, "finetune", _stamp()))


def _predict(settings: PredictSettings) -> None:
    from keras_bert.prediction import predict, write_table

    target = Path(settings.out or "predictions.csv")
    table = predict(settings)
    write_table(table, target)
    print(f"{len(table)} predictions: {target}")


def _convert(settings: ConvertSettings) -> None:
    from keras_bert.convert import to_hugging_face
    from keras_bert.loading import bert_of, find_source
    from keras_bert.model import PretrainingModel
    from keras_bert.tokenizing import load_tokenizer, save_for_hugging_face

    source, target = find_source(settings.run), Path(settings.out)
    tokenizer = load_tokenizer(source.folder, clean_links=False)
    to_hugging_face(
        source.model if isinstance(source.model, PretrainingModel) else bert_of(source.model),
        target,
    )
    save_for_hugging_face(tokenizer, target)
    print(f"weights and tokenizer in Hugging Face's layout: {target}")


_COMMANDS: dict[str, tuple[Callable[[Any], None], type[Any], str]] = {
    "pretrain": (_pretrain, PretrainSettings, "learn a language model from texts"),
    "finetune": (_finetune, FinetuneSettings, "train a classifier of texts on a BERT"),
    "predict": (_predict, PredictSettings, "predict texts with a run of finetune"),
    "convert": (
        _convert,
        ConvertSettings,
        "write a BERT as a folder that Hugging Face's from_pretrained reads",
    ),
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m keras_bert",
        description="A BERT written from scratch in Keras. Without data, a command uses a sample.",
    )
    commands = parser.add_subparsers(metavar="COMMAND")
    for name, (work, settings_type, text) in _COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text.capitalize() + ".")
        command.set_defaults(work=work, settings_type=settings_type)
        hints = get_type_hints(settings_type)
        for option in fields(settings_type):
            _add(command, option, hints[option.name])
    return parser


def _add(command: argparse.ArgumentParser, option: Field[Any], hint: Any) -> None:  # noqa: ANN401 - any type at all
    """One option of the command line from one field of the settings."""
    more: dict[str, Any] = {"help": option.metadata["help"]}
    if option.metadata.get("positional"):
        command.add_argument(
            option.name,
            nargs="*" if get_origin(hint) is tuple else None,
            metavar=option.name.upper(),
            **more,
        )
        return
    flag = "--" + option.name.replace("_", "-")
    if hint is bool:
        command.add_argument(
            flag, action=argparse.BooleanOptionalAction, default=option.default, **more
        )
        return
    plain = (
        next((part for part in get_args(hint) if part is not type(None)), hint)
        if get_origin(hint) in {Union, types.UnionType}
        else hint
    )
    if get_origin(hint) is Literal:
        more["choices"] = get_args(hint)
    elif get_origin(hint) is tuple:
        more |= {"nargs": "+", "metavar": "FILE"}
    else:
        word = "NAME" if option.name.endswith("column") else "PATH"
        more |= {"type": plain, "metavar": {int: "N", float: "X"}.get(plain, word)}
    if option.metadata.get("required"):
        command.add_argument(flag, required=True, **more)
    else:
        shown = "" if option.default in (None, (), MISSING) else f" (default: {option.default})"
        command.add_argument(
            flag,
            default=option.default,
            **{**more, "help": more["help"].replace("%", "%%") + shown},
        )
