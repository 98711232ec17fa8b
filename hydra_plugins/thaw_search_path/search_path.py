"""Hydra plugin that lets a config name the configs of own packages: `loss=my_focal`."""

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin


class OwnConfigsSearchPath(SearchPathPlugin):
    """Adds the folders with configs of own packages and of the working directory."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append the folders; a config of Thaw precedes one of the same name."""
        from engine.config.own_packages import own_config_folders

        for folder in own_config_folders():
            search_path.append(provider="thaw", path=f"file://{folder}")
