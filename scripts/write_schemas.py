"""Write the JSON schemas of the config groups, for editors: `python scripts/write_schemas.py`.

They are written to `configs/schemas/`. With a folder of own configs, they are written to its folder
`schemas` and also describe the classes of own packages.
"""

import argparse
import sys
from pathlib import Path

from engine.config.errors import ConfigError
from engine.config.schemas.files import FOLDER, write_schemas
from engine.processes.outcome import report_failure
from run_folders.errors import printable
from run_folders.own_packages import own_packages


def main() -> int:
    """Write the schemas of a folder of configs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("configs", nargs="?", type=Path, help="folder of own configs")
    configs = parser.parse_args().configs
    with report_failure() as outcome:
        if configs is None:
            files = write_schemas(FOLDER)
        elif configs.is_dir():
            files = write_schemas(configs / FOLDER.name, own_packages())
        else:
            msg = f"{configs} is not a folder; name the folder of your configs, such as configs"
            raise ConfigError(msg)
        print(printable(f"{len(files)} schemas written to {files[0].parent}"))
    return outcome.code


if __name__ == "__main__":
    sys.exit(main())
