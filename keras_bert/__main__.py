"""Entry point of `python -m keras_bert`."""

import sys

from keras_bert.command_line import main

if __name__ == "__main__":
    sys.exit(main())
