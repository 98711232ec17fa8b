"""The rungs of a ladder, and the config of the run of a rung."""

from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from engine.config.errors import ConfigError

HEAD, ALL = "head", "all"
_UNFREEZING = "lightning_modules.callbacks.layer_unfreezing.LayerUnfreezing"


def rung_names(blocks: int) -> list[str]:
    """Return the rungs of a backbone: head, last block, last two, four, ... and all."""
    found, count = [HEAD], 1
    while count < blocks:
        found.append(str(count))
        count *= 2
    return [*found, ALL]


def set_rung(cfg: DictConfig, rung: object) -> None:
    """Turn a config into that of an ordinary run that trains a rung, without a test.

    Args:
        cfg: The config, changed in place.
        rung: `head`, `all`, or the number of the last blocks that train.

    Raises:
        ConfigError: If there is no such rung.
    """
    name = str(rung)
    if name not in (HEAD, ALL) and not (name.isascii() and name.isdecimal() and int(name)):
        msg = f"depth.rung: received {rung!r}; head, all, or a number of blocks is needed"
        raise ConfigError(msg)
    with open_dict(cfg):
        cfg.depth, cfg.test = {}, False
        before = _without_unfreezing(cfg)
        cfg.model.freeze_backbone = name == HEAD
        if cfg.cache.features is True:  # the last rung has no frozen layers
            cfg.cache.features = "auto"
        if name == HEAD:
            return
        cfg.callbacks.unfreezing = {
            "_target_": _UNFREEZING,
            "start_layer": ALL if name == ALL else None,
            "last_blocks": None if name == ALL else int(name),
            "layer_decay": before.get("layer_decay"),
        }


def _without_unfreezing(cfg: DictConfig) -> dict[str, Any]:
    """Remove the unfreezing callbacks of a config, and return the last one's settings."""
    names = [n for n, node in cfg.callbacks.items() if node.get("_target_") == _UNFREEZING]
    found: Any = [OmegaConf.to_container(cfg.callbacks.pop(name)) for name in names]
    return dict(found[-1]) if found else {}
