"""Imports all that the Keras BERT needs, in the process that others are forked from.

None of it imports PyTorch.
"""

import gc
import importlib
import pkgutil
from contextlib import suppress

import keras_bert

for module in pkgutil.walk_packages(keras_bert.__path__, "keras_bert."):
    if not module.name.endswith("__main__"):
        with suppress(ImportError):  # the module needs an extra that is not installed
            importlib.import_module(module.name)
gc.collect()
gc.freeze()
