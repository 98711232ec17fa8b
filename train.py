"""Train, test and report one configuration: `python train.py experiment=bert_finetune`."""

import sys

from thaw.commands.train import main

if __name__ == "__main__":
    sys.exit(main())
