"""Write the JSON schemas of the config groups: `python scripts/write_schemas.py [CONFIGS]`."""

import sys

from thaw.commands.write_schemas import main

if __name__ == "__main__":
    sys.exit(main())
