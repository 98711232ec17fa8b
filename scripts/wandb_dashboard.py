"""Create a project's dashboard at W&B: `python scripts/wandb_dashboard.py ENTITY/PROJECT`."""

import sys

from thaw.commands.wandb_dashboard import main

if __name__ == "__main__":
    sys.exit(main())
