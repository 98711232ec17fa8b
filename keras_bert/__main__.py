"""Entry point of `python -m keras_bert`."""

import logging
import sys

from engine.processes.terminal import log_to_terminal
from keras_bert.command_line import main

if __name__ == "__main__":
    log_to_terminal(logging.WARNING)
    logging.getLogger("datamodules").setLevel(logging.INFO)  # progress, and lines passed over
    sys.exit(main())
