"""The config as it may be written down: interpolations resolved, secrets left out."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.resolvers import oc

HIDDEN = "<redacted>"
_SECRET_KEY = re.compile(
    r"^(.*_)?(api_?key|secret|secret_key|password|passwd|credentials?|(access|auth|hub|hf|api|bearer)_?token|token)$",
    re.IGNORECASE,
)
_LOGIN_IN_URL = re.compile(r"://[^/@\s:]+:[^/@\s]+@")


def redacted(cfg: DictConfig) -> Any:  # noqa: ANN401 - a config of the same shape
    """Copy a config for config.yaml.

    Args:
        cfg: The composed config.

    Returns:
        The same values with interpolations resolved; values of secret keys and logins inside URLs hidden; values that
        come from environment variables left as `${oc.env:...}`.
    """
    with _environment_left_as_text():
        return OmegaConf.create(_copy(cfg))


@contextmanager
def _environment_left_as_text() -> Iterator[None]:
    """Have `${oc.env:NAME}` give itself, through whatever other interpolations refer to it."""

    def as_text(*arguments: str) -> str:
        return "${oc.env:" + ",".join(map(str, arguments)) + "}"

    OmegaConf.register_new_resolver("oc.env", as_text, replace=True)
    try:
        yield
    finally:
        OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)


def _copy(node: DictConfig | ListConfig) -> Any:  # noqa: ANN401 - dicts and lists of plain values
    if isinstance(node, ListConfig):
        return [_value(node, index) for index in range(len(node))]
    return {key: HIDDEN if _is_secret(str(key), node, key) else _value(node, key) for key in node}


def _is_secret(name: str, node: DictConfig, key: Any) -> bool:  # noqa: ANN401 - any key of a config
    return bool(_SECRET_KEY.match(name)) and isinstance(node[key], str)


def _value(node: DictConfig | ListConfig, key: Any) -> Any:  # noqa: ANN401 - any key of a config
    value = node[key]
    if isinstance(value, DictConfig | ListConfig):
        return _copy(value)
    return _LOGIN_IN_URL.sub(f"://{HIDDEN}@", value) if isinstance(value, str) else value
