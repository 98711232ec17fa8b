"""List or remove stored features: `python scripts/cache.py list|clear`."""

import sys

from thaw.commands.cache import main

if __name__ == "__main__":
    sys.exit(main())
