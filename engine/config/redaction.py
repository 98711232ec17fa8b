"""Resolve a config for config.yaml, and hide its secrets."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers import oc

from engine.config.defaults import FROM_ENVIRONMENT, from_environment

HIDDEN = "<redacted>"
_SECRET_KEY = re.compile(
    r"(^|.*_)(api_?key|(access|private|secret|signing)_key(_id)?|secret|password|passwd|passphrase|credentials?|token)$",
    re.IGNORECASE,
)
# Special tokens of a tokenizer, which are not secrets.
_TEXT_TOKEN = re.compile(
    r"^(pad|mask|cls|sep|unk|bos|eos|image|decoder_start)_token$", re.IGNORECASE
)
_LOGIN_IN_URL = re.compile(r"://[^/@\s]+@")
# A shorter secret is hidden under its own key only, because elsewhere it may be an ordinary text.
_SHORTEST = 4


def redacted(cfg: DictConfig) -> Any:  # noqa: ANN401 - a config of the same shape
    """Copy a config for config.yaml.

    Args:
        cfg: The composed config.

    Returns:
        The same values with interpolations resolved. Values of secret keys are hidden, also where
        they occur under other keys, and so are logins in URLs. Values from environment variables
        stay `${oc.env:...}`.
    """
    secrets = secret_values(cfg)
    with _environment_left_as_text():
        return OmegaConf.create(_copy(cfg, secrets))


def secret_values(node: Any) -> set[str]:  # noqa: ANN401 - a config or a value of one
    """Return the values of all secret keys, as text."""
    found: set[str] = set()
    if isinstance(node, ListConfig):
        for index in range(len(node)):
            found |= secret_values(_resolved(node, index))
    elif isinstance(node, DictConfig):
        for key in node:
            value = _resolved(node, key)
            if _is_secret(str(key), value) and len(str(value)) >= _SHORTEST:
                found.add(str(value))
            found |= secret_values(value)
    return found


def hide(text: str, secrets: set[str]) -> str:
    """Replace secrets and logins in URLs in a text, longer secrets first.

    Secrets are also found as Hydra and YAML write them in quotes. A text that is quoted for a shell
    is hidden before it is quoted.
    """
    written = {form for secret in secrets for form in _written(secret)}
    for form in sorted(written, key=len, reverse=True):
        text = text.replace(form, HIDDEN)
    return _LOGIN_IN_URL.sub(f"://{HIDDEN}@", text)


def _written(secret: str) -> set[str]:
    """Return a secret as it is, and with its quotes escaped."""
    doubled = secret.replace("'", "''")
    return {secret, doubled, secret.replace("'", r"\'"), secret.replace('"', r"\"")}


def _resolved(node: DictConfig | ListConfig, key: Any) -> Any:  # noqa: ANN401 - any value of a config
    try:
        return node[key]
    except OmegaConfBaseException:  # a missing value or a broken interpolation has nothing to hide
        return None


@contextmanager
def _environment_left_as_text() -> Iterator[None]:
    """Resolve what comes from the environment to `${oc.env:NAME}`, also inside interpolations."""

    def as_text(*arguments: str) -> str:
        return "${oc.env:" + ",".join(map(str, arguments)) + "}"

    def text_if_set(name: str, default: Any) -> Any:  # noqa: ANN401 - any value of a config
        return as_text(name) if from_environment(name, None) else default

    OmegaConf.register_new_resolver("oc.env", as_text, replace=True)
    OmegaConf.register_new_resolver(FROM_ENVIRONMENT, text_if_set, replace=True)
    try:
        yield
    finally:
        OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)
        OmegaConf.register_new_resolver(FROM_ENVIRONMENT, from_environment, replace=True)


def _copy(node: Any, secrets: set[str]) -> Any:  # noqa: ANN401 - dicts and lists of plain values
    if isinstance(node, ListConfig):
        return [_copy(node[index], secrets) for index in range(len(node))]
    if isinstance(node, DictConfig):
        values = {key: node[key] for key in node}
        return {
            key: HIDDEN if _is_secret(str(key), value) else _copy(value, secrets)
            for key, value in values.items()
        }
    return hide(node, secrets) if isinstance(node, str) else node


def _is_secret(key: str, value: object) -> bool:
    plain = not isinstance(value, DictConfig | ListConfig | bool | None)
    return plain and bool(_SECRET_KEY.match(key)) and not _TEXT_TOKEN.match(key)
