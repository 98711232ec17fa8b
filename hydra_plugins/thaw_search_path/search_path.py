"""Hydra plugin that lets a config name the configs of own packages: `loss=my_focal`."""

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin


class OwnConfigsSearchPath(SearchPathPlugin):
    """Adds the folders with configs of own packages and of the working directory."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append the folders; a config of Thaw precedes one of the same name.

        Other applications of Hydra in the same environment are left alone.
        """
        from engine.config.composing.paths import CONFIGS, own_config_folders

        main = [item.path for item in search_path.get_path() if item.provider == "main"]
        if str(CONFIGS) not in [path.removeprefix("file://") for path in main]:
            return
        for folder in own_config_folders():
            search_path.append(provider="thaw", path=f"file://{folder}")
