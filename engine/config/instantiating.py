"""Build the object of a config node. The only caller of `hydra.utils.instantiate`."""

from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from engine.config.validation import check_targets
from run_folders.errors import UserError


def instantiate(node: DictConfig, **more: Any) -> Any:  # noqa: ANN401 - whatever the _target_ is
    """Build the object of a config node.

    Its targets are checked here too, because a config from a run folder has not been validated.
    """
    plain = OmegaConf.to_container(node, resolve=True)
    assert isinstance(plain, dict)  # noqa: S101 - tells the type checker
    check_targets([plain, *more.values()])
    try:
        return hydra.utils.instantiate(
            {key: v for key, v in plain.items() if key not in more}, _convert_="all", **more
        )
    except hydra.errors.InstantiationException as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from error
        raise
