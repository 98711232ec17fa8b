"""Check the keys of a config: none is unknown, none of the nodes is missing, each has a value."""

from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from engine.config.composing.paths import CONFIGS
from engine.config.composing.sources import PARTS
from engine.config.signatures import Fault
from run_folders.errors import brief, nearest
from run_folders.nested import nodes

# Groups whose options do not set the key that is named like the group.
_GLOBAL_GROUPS = {"hydra", "experiment", "sweep", "debug", *PARTS}
# Groups whose key is one node with a _target_.
_SINGLE_TARGETS = ("data", "model", "trainer")
# Groups whose key maps names to nodes with a _target_.
_NAMED_TARGETS = ("callbacks", "logger")


# Key -> what to set where it is null. Its default follows from another key.
ADVICE_FOR_NULL = {
    "data.tokenizer": "for a backbone of random weights set "
    "data.tokenizer='{vocab_size: 2000}', or a tokenizer's name",
}


def unknown_keys(cfg: DictConfig) -> Iterator[Fault]:
    """Yield a fault for each key outside of the nodes that nothing reads, and each missing node."""
    train: Any = OmegaConf.load(CONFIGS / "train.yaml")
    paths: Any = OmegaConf.load(CONFIGS / "paths" / "default.yaml")
    plain: Any = OmegaConf.to_container(cfg, resolve=False)
    chosen = {
        group for default in train.defaults if isinstance(default, DictConfig) for group in default
    }
    roots = {*train} - {"defaults"} | (chosen - _GLOBAL_GROUPS)
    known = [key for key, _ in nodes(plain) if key.partition(".")[0] in roots]
    for key in plain:
        if key not in roots:
            yield str(key), f"unknown key; {nearest(str(key), known)}"
    mappings = {name: value for name, value in plain.items() if isinstance(value, dict)}
    for name in ("paths", *_NAMED_TARGETS):
        if name not in mappings and plain.get(name) is not None:
            yield name, f"received {plain[name]!r}; a mapping is needed"
    for name, keys in (("paths", list(paths)), ("cache", list(train.cache))):
        for key in mappings.get(name, ()):
            if key not in keys:
                yield f"{name}.{key}", f"unknown key; {nearest(str(key), keys)}"
    for name in _SINGLE_TARGETS:
        if not isinstance(cfg.get(name), DictConfig) or "_target_" not in cfg[name]:
            yield name, "needs a _target_; choose an option of the group"
    for group in _NAMED_TARGETS:
        for name, node in mappings.get(group, {}).items():
            if not isinstance(node, dict) or "_target_" not in node:
                yield f"{group}.{name}", "has no _target_, so nothing would be built from it"


def unresolved_values(node: DictConfig | ListConfig, prefix: str = "") -> Iterator[Fault]:
    """Yield a fault for each value that is ??? or whose interpolation fails."""
    keys = list(node) if isinstance(node, DictConfig) else range(len(node))
    for key in keys:
        path = f"{prefix}{key}"
        try:
            if OmegaConf.is_missing(node, key):
                yield path, "is ???; set a value"
                continue
            value = node[key]
        except OmegaConfBaseException as error:
            plain: Any = OmegaConf.to_container(node, resolve=False)
            text = str(plain[key])
            advice = [advice for name, advice in ADVICE_FOR_NULL.items() if f"${{{name}." in text]
            yield path, f"cannot read {text}: {brief(error) if not advice else advice[0]}"
            continue
        if isinstance(value, DictConfig | ListConfig) and not OmegaConf.is_interpolation(node, key):
            yield from unresolved_values(value, f"{path}.")
