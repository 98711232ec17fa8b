"""The option `--merge-tokens` of evaluation and prediction."""

import argparse
from typing import Any

import yaml


def add_merge_tokens(parser: argparse.ArgumentParser) -> None:
    """Add the option to a parser; its value is a number, a list or a mapping."""
    parser.add_argument(
        "--merge-tokens",
        type=_value,
        metavar="R",
        help="tokens that each block of a vision transformer merges: a number, [8,8,4,...] or "
        "{merged: 8, inflection: -1} (default: as in training)",
    )


def _value(text: str) -> Any:  # noqa: ANN401 - checked when the run is opened
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        msg = f"received {text!r}; give a number such as 13, or a list such as [8,8,4]"
        raise argparse.ArgumentTypeError(msg) from error
