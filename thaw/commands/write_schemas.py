"""Write the JSON schemas of the config groups, with which editors complete and check YAML files.

The schemas are written to the folder `schemas` of a folder of configs. They describe Thaw's classes
and those of own packages.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from engine.config.errors import ConfigError
from engine.processes.outcome import report_failure
from run_folders.errors import printable
from run_folders.own_packages import own_packages


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Write the schemas of a folder of configs."""
    parser = argparse.ArgumentParser(prog, description=__doc__)
    parser.add_argument(
        "configs", nargs="?", type=Path, help="a folder of own configs (default: Thaw's own)"
    )
    configs = parser.parse_args(arguments).configs
    with report_failure() as outcome:
        if configs is not None and not configs.is_dir():
            msg = f"{configs} is not a folder; name the folder of your configs, such as configs"
            raise ConfigError(msg)
        # Imported here: it imports torch, and --help does not need it.
        from engine.config.schemas.files import FOLDER, write_schemas

        folder = FOLDER if configs is None else configs / FOLDER.name
        files = write_schemas(folder, [] if configs is None else own_packages())
        print(printable(f"{len(files)} schemas written to {folder}"))
    return outcome.code
